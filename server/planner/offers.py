"""Reads what the planner needs to know from the database."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from server.planner.plan import FullPackage, Holding, Offer, Plan, plan
from server.tables import Device, DeviceModel, Package, Version


def load_offers(session: Session, target: Version) -> list[Offer]:
    """The published packages that lead to `target`."""
    base = aliased(Version)
    query = (
        select(Package, base.weights_digest)
        .outerjoin(base, Package.base_version_id == base.id)
        .where(Package.target_version_id == target.id, Package.state == "published")
    )
    return [
        Offer(p.id, digest, target.weights_digest, p.method, p.size_bytes)
        for p, digest in session.execute(query)
    ]


def holding_of(device: Device, held: DeviceModel) -> Holding:
    """What the device holds of one model and can decode."""
    methods = device.capabilities.get("methods") or {}
    return Holding(held.weights_digest, frozenset(held.slots), methods)


def plan_for(session: Session, device: Device, held: DeviceModel, target: Version) -> Plan:
    """The plan that takes a device to `target`."""
    full = FullPackage(target.model_id, target.id)
    offers = load_offers(session, target)
    return plan(holding_of(device, held), target.weights_digest, offers, full)
