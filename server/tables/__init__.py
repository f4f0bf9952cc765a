"""All tables: what the server knows and how it hangs together.

    models ─┬─ versions ─┬─ refinements (base -> target, on a dataset)
            │            ├─ packages    (base -> target, or full)
            │            └─ rollouts ──── assignments ─┐
               device_models ──────────── devices ─────┘
            runs ── signed_reports ───────┘ └─ device_tags       groups: saved filters over devices
    enrolment_tokens, preauthorisations, retired_keys: how devices come to be known
    events: what happened to any of them, append-only ── webhooks ── deliveries
    trust_roots, trust_metadata (of a model): what devices believe, as it was signed
    api_keys: who may ask on the management plane; rollout_groups, dataset_keys: what is whose
    leases, installation: what several server processes, and a restore, need to agree on

Digests are lower-case hex. Status strings are lower_snake text, never enum ordinals. Weights and
packages themselves lie in the blob store, under the SHA-256 of the file (`blob`, `sha256`).
"""

from server.tables.access import ApiKey, DatasetKey, RolloutGroup
from server.tables.enrolment import EnrolmentToken, Preauthorisation, RetiredKey, SignedReport
from server.tables.fleet import NOT_TOLD, Device, DeviceModel, DeviceTag, Group, Run
from server.tables.history import Delivery, Event, Webhook
from server.tables.registry import STATISTICS_BLOB, Dataset, Model, Version
from server.tables.rollouts import Assignment, Rollout
from server.tables.service import IdempotencyKey, Installation, Lease
from server.tables.trust import TrustMetadata, TrustRoot
from server.tables.types import Base, Json, Moment, now
from server.tables.work import Package, Refinement

__all__ = [
    "NOT_TOLD",
    "STATISTICS_BLOB",
    "ApiKey",
    "Assignment",
    "Base",
    "Dataset",
    "DatasetKey",
    "Delivery",
    "Device",
    "DeviceModel",
    "DeviceTag",
    "EnrolmentToken",
    "Event",
    "Group",
    "IdempotencyKey",
    "Installation",
    "Json",
    "Lease",
    "Model",
    "Moment",
    "Package",
    "Preauthorisation",
    "Refinement",
    "RetiredKey",
    "Rollout",
    "RolloutGroup",
    "Run",
    "SignedReport",
    "TrustMetadata",
    "TrustRoot",
    "Version",
    "Webhook",
    "now",
]


def _give_no_id_twice() -> None:
    """Have SQLite count ids as PostgreSQL does: what anybody has seen keeps its meaning."""
    for table in Base.metadata.tables.values():
        if table.autoincrement_column is not None and table is not Installation.__table__:
            table.dialect_options["sqlite"]["autoincrement"] = True


_give_no_id_twice()
