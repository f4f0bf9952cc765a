"""Devices at a server, and all that one of them could want to change of what it knows of others."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select, update

from server.db import reading, writing
from server.tables import (
    Assignment,
    Device,
    DeviceModel,
    EnrolmentToken,
    RetiredKey,
    Run,
    SignedReport,
    now,
)
from shared.wire import ENROL_PATH, PACKAGES_PATH, REPORTS_PATH
from tests.attacks.attack import Seen
from tests.attacks.plant import Plant, told
from tests.device_keys import DeviceKey

#: Of a device; that it is held because of the attack is meant.
_OF_DEVICE = ("id", "name", "public_key", "capabilities", "attributes", "enrolment_token_id")


class Ranks:
    """A model `m` with one version, whose devices enrol by tokens."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        plant.model()
        self.digest = str(plant.upload(plant.weights_file().read_bytes()).json()["weights_digest"])

    def token(self, **wanted: Any) -> str:
        """A new enrolment token, by default for one device, as a device sends it."""
        body = {"name": "for cameras", **wanted}
        made: str = self.plant.do("POST", "/api/v1/enrolment_tokens", json=body)["token"]
        return made.rpartition(".")[0] or made

    def try_to_enrol(self, token: str, key: DeviceKey, signer: DeviceKey | None = None) -> Any:
        """The whole answer; `signer`: whose key signs, by default the one that is shown."""
        body = {
            "name": "cam",
            "token": token,
            "key": key.public,
            "models": {"m": {"slots": [self.digest], "current": self.digest}},
        }
        return self.plant.ask("POST", ENROL_PATH, None, **(signer or key).signed("enrol", "", body))

    def end_tokens(self) -> None:
        """Have all tokens end a moment ago."""
        with writing(self.plant.server.app.state.engine) as session:
            session.execute(update(EnrolmentToken).values(expires_at=now()))

    def enrol(self, token: str | None = None, key: DeviceKey | None = None) -> Any:
        """A device, which holds version 1; its answer, with its key."""
        key = key or DeviceKey()
        answer = self.try_to_enrol(token or self.token(), key)
        assert answer.is_success, answer.text
        return answer.json() | {"key": key}

    def report(
        self, device: Any, counter: int, signer: DeviceKey | None = None, **changes: Any
    ) -> Seen:
        """What a report of the device brings about that it has gone to other weights."""
        body = {
            "counter": counter,
            "model": "m",
            "result": "committed",
            "state": "committed",
            "weights_digest": "f" * 64,
        } | changes
        bearer = {"Authorization": f"Bearer {device['token']}"}
        signed = (signer or device["key"]).signed("report", device["device_id"], body, bearer)
        return told(self.plant.ask("POST", REPORTS_PATH, None, **signed))

    def report_unsigned(self, device: Any, counter: int) -> Seen:
        """As `report`, signed by nobody."""
        body = {"counter": counter, "model": "m", "result": "committed", "state": "committed"}
        wrong = body | {"weights_digest": "f" * 64}
        return self.plant.seen("POST", REPORTS_PATH, device["token"], json=wrong)

    def download(self, device: Any, sha256: str) -> Seen:
        """What the device gets of a package."""
        return self.plant.seen("GET", f"{PACKAGES_PATH}/{sha256}", device["token"])

    def package(self, model: str = "m") -> str:
        """A package of a model to its first version, by which devices could be led to it."""
        body = {"model": model, "target": 1, "method": {"id": "full"}}
        return str(self.plant.do("POST", "/api/v1/packages", json=body)["sha256"])

    def state(self) -> object:
        """Who they are, what they run, what has been reported, and what tokens are worth."""
        tables = (Assignment, DeviceModel, EnrolmentToken, RetiredKey, Run, SignedReport)
        columns = [getattr(Device, name) for name in _OF_DEVICE]
        with reading(self.plant.server.app.state.engine) as session:
            queries = [select(*columns), *(select(*table.__table__.columns) for table in tables)]
            return [sorted(map(repr, session.execute(query))) for query in queries]
