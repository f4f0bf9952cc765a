"""Which weights each device had in use, between which dates: kept even where events expire."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.tables import Run, now


def note(
    session: Session,
    device_id: str,
    model_name: str,
    digest: str | None,
    at: datetime | None = None,
    report_id: int | None = None,
) -> None:
    """Say which weights a device has in use now (`digest` in hex; None: none, or unknown ones).

    `report_id`: the signed report that says so.
    Where they are others than before, the time of those ends here and that of these begins. The
    caller's transaction holds the device: two reports of one device never meet here.
    """
    still = (Run.device_id == device_id) & (Run.model_name == model_name) & Run.until.is_(None)
    current = session.scalar(select(Run).where(still))
    if current is not None and current.weights_digest == digest:
        return
    moment = at or now()
    if current is not None:
        current.until = moment
    if digest is not None:
        run = Run(
            device_id=device_id,
            model_name=model_name,
            weights_digest=digest,
            since=moment,
            report_id=report_id,
        )
        session.add(run)
        session.flush()
