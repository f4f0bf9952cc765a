"""Attacks by whoever holds the server, or has kept what was signed before."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from tuf.api.metadata import Targets

from edge_agent.trust.store import Store
from edge_agent.trust.verify import verify
from shared.metadata import PACKAGES, ROOT, SNAPSHOT, TARGETS, TIMESTAMP, MetadataFile
from tests.attacks.attack import Act, attack, forgets, no, nothing
from tests.attacks.victim import DAY, Victim, digest
from tests.signing import Repository, Roots, signer

TUF = "tuf.ngclient._internal.trusted_metadata_set:TrustedMetadataSet"
CLIENT = "edge_agent.trust.client"


def _whatever_version(self: Any, data: bytes, role: str, delegator: str) -> Targets:
    """As ngclient loads targets, but for the version that the snapshot tells."""
    targets, _, _ = self._load_data(Targets, data, self[delegator], role)
    self._add(role, targets, delegator)
    found: Targets = targets
    return found


@attack(
    "repository",
    refused="trust.older_metadata",
    told="metadata of digits",
    defence=f"{CLIENT}:Client._load_local_metadata",
    off=forgets,
)
def metadata_of_last_week(victim: Victim) -> Act:
    """Somebody answers with what was signed before a version was withdrawn (rollback)."""
    before = victim.files().values()
    victim.repository.withdraw(2)
    assert victim.install(2).code == "trust.not_released"
    return lambda: victim.install_by(list(before), 2)


@attack(
    "repository",
    refused="trust.expired",
    told="timestamp.json is expired",
    defence="tuf.api.metadata:Timestamp.is_expired",
    off=no,
)
def a_server_that_stands_still(victim: Victim) -> Act:
    """Somebody keeps all news from a device, such as that a version was withdrawn (freeze)."""
    victim.clock += 15 * DAY
    return lambda: victim.install_by([], 2)


@attack(
    "repository",
    refused="trust.expired",
    told="timestamp.json is expired",
    defence=f"{CLIENT}:Client._believe_that_it_was",
    off=nothing,
)
def a_clock_that_was_set_back(victim: Victim) -> Act:
    """Somebody takes the battery out of the clock, to have expired metadata believed."""
    _see_another_model(victim, days=20)
    victim.clock = 0.0
    return lambda: victim.install_by([], 2)


def _see_another_model(victim: Victim, days: int) -> None:
    """The device hears, by another model of its own, what day it is."""
    later = victim.repository.now + timedelta(days=days)
    other = Repository("other", victim.roots, now=later)
    store = Store.of(victim.state_dir, "other")
    store.prepare()
    verify(store, "other", other.answer({}), victim.pin, later.timestamp())


@attack(
    "repository",
    refused="trust.older_metadata",
    told="Expected targets v",
    defence=f"{TUF}.update_delegated_targets",
    off=_whatever_version,
)
def old_targets_among_new_metadata(victim: Victim) -> Act:
    """Somebody puts files of different days together (mix-and-match)."""
    before = victim.files()[TARGETS]
    victim.repository.withdraw(2)
    files = victim.files()
    old = MetadataFile(TARGETS, files[TARGETS].version, before.content)
    return lambda: victim.install_by([*(files | {TARGETS: old}).values()], 2)


@attack(
    "repository",
    refused="trust.older_metadata",
    told="Expected snapshot version",
    defence=f"{TUF}._check_final_snapshot",
    off=nothing,
)
def an_old_snapshot_under_a_new_timestamp(victim: Victim) -> Act:
    """Somebody answers with the snapshot of before a version was withdrawn (mix-and-match)."""
    before = victim.files()
    victim.repository.withdraw(2)
    files = victim.files()
    old = MetadataFile(SNAPSHOT, files[SNAPSHOT].version, before[SNAPSHOT].content)
    return lambda: victim.install_by([files[TIMESTAMP], old, before[TARGETS], before[PACKAGES]], 2)


@attack(
    "repository",
    refused="trust.not_released",
    told="is not released, or not any more",
    defence="edge_agent.trust.released:check_version",
    off=nothing,
    then="trust.not_released",
)
def a_version_that_was_withdrawn(victim: Victim) -> Act:
    """Whoever holds the server offers what was withdrawn, and its package, which is still there."""
    victim.repository.withdraw(2)
    return lambda: victim.install(2)


@attack(
    "repository",
    refused="trust.not_listed",
    told="is not listed",
    defence="edge_agent.trust.released:check_listing",
    off=nothing,
)
def a_package_that_nobody_listed(victim: Victim) -> Act:
    """Whoever holds the server, but no key, offers a package that was made to harm the decoder."""
    evil = victim.offered("a harmful package", digest(1))
    return lambda: victim.install(2, packages=[evil])


@attack(
    "repository",
    refused="trust.older_version",
    told="version 1 is older than version 2, which is in use",
    defence="edge_agent.trust.released:check_direction",
    off=nothing,
)
def an_older_version(victim: Victim) -> Act:
    """Whoever holds the server has devices go back to weights with a known weakness."""
    assert victim.install(2).code is None
    victim.list("back to 1", digest(2), digest(1))
    return lambda: victim.install(1, packages=[victim.offered("back to 1", digest(2))])


@attack(
    "repository",
    refused="trust.unsigned",
    told="targets",
    defence="securesystemslib.signer:SSlibKey.verify_signature",
    off=nothing,
)
def a_release_with_another_digest(victim: Victim) -> Act:
    """Somebody on the way changes what is signed of a version."""
    files = victim.files()
    content = files[TARGETS].content.replace(digest(2).encode(), digest("evil").encode())
    victim.repository.files[TARGETS] = MetadataFile(TARGETS, files[TARGETS].version, content)
    victim.list("evil", digest(1), digest("evil"))
    order = {"weights_digest": digest("evil"), "packages": [victim.offered("evil", digest(1))]}
    newer = victim.files()
    return lambda: _from_nothing(victim).install_by(_all(victim, newer), 2, **order)


def _all(victim: Victim, files: dict[str, MetadataFile]) -> list[MetadataFile]:
    roots = [MetadataFile(ROOT, n, root) for n, root in enumerate(victim.roots.files, 1)]
    return [*roots, *files.values()]


def _from_nothing(victim: Victim) -> Victim:
    """As a device that holds no metadata yet."""
    for role in (TIMESTAMP, SNAPSHOT, TARGETS, PACKAGES):
        victim.store.path(role).unlink(missing_ok=True)
    return victim


@attack(
    "repository",
    refused="trust.wrong_root",
    told="the server's first root has SHA-256",
    defence="edge_agent.trust.verify:check_first",
    off=nothing,
)
def another_server_at_enrolment(victim: Victim) -> Act:
    """Somebody takes the place of the server before a device has ever seen it."""
    victim.store.root.forget()
    forger = Repository(victim.repository.model, Roots(keys=_all_keys("evil")))
    forger.release(2, digest(2))
    told = {"size": 1000, "base": digest(1), "result": digest(2), "method": "xor"}
    forger.offer(digest("to 2"), **told)
    root = MetadataFile(ROOT, 1, forger.roots.files[0])
    return lambda: _from_nothing(victim).install_by([root, *forger.files.values()], 2)


def _all_keys(name: str) -> dict[str, Any]:
    return {role: [signer(f"{name} {role}")] for role in (ROOT, TARGETS, SNAPSHOT, TIMESTAMP)}


@attack(
    "repository",
    refused="trust.other_model",
    told="is of model 'other', not of digits",
    defence=f"{CLIENT}:check_model",
    off=nothing,
)
def metadata_of_another_model(victim: Victim) -> Act:
    """Whoever holds the server answers with another model's metadata, signed by the same keys."""
    other = Repository("other", victim.roots)
    other.release(2, digest(2))
    told = {"size": 1000, "base": digest(1), "result": digest(2), "method": "xor"}
    other.offer(digest("to 2"), **told)
    _from_nothing(victim)
    return lambda: victim.install_by(list(other.files.values()), 2)
