"""Simulated devices, many in one process: `python -m demo.fleet.devices SERVER TOKEN COUNT FOLDER`.

Each polls when the server says, verifies signed metadata and holds the offer against them as an
agent does, downloads, decodes with the device's own code (`shared/decode.py`), checks the result's
health and reports, signed; it keeps the weights that it had as its second slot. What it leaves out
is what a real agent has for hard times: the journal, resuming, restarts.

It ends when its standard input does.
"""

from __future__ import annotations

import heapq
import shutil
import sys
import threading
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import httpx

from demo.fleet.weights import MODEL, are_sound, write_version
from edge_agent.heavy.inline import Inline
from edge_agent.inventory import capabilities
from edge_agent.journal import Target
from edge_agent.keys import DeviceKey
from edge_agent.trust import released
from edge_agent.trust.root import accepted
from edge_agent.trust.store import Store
from edge_agent.trust.verify import verify
from shared import wire
from shared.decode import decode
from shared.errors import WeftError
from shared.package import PackageReader
from shared.weights import WeightsReader

LINES = 3
#: Devices of this production line have nothing that could judge new weights.
BLIND_LINE = 3


@dataclass
class Device:
    """One device: its identity, its slots (digest -> file), and its last report's counter."""

    http: httpx.Client
    folder: Path
    number: int
    slots: dict[str, Path]
    current: str
    pin: str | None = None
    """SHA-256 of the root that it believes."""
    device_id: str = ""
    token: str = ""
    etag: str = ""
    counter: int = 0
    on_trial: wire.DesiredModel | None = None
    """What is in use until its health check has ended, which takes from one poll to the next."""

    @property
    def line(self) -> int:
        """The production line that the device stands at, from 1."""
        return 1 + self.number % LINES

    @cached_property
    def key(self) -> DeviceKey:
        """What it signs by."""
        return DeviceKey(self.folder / "device.key")

    @cached_property
    def store(self) -> Store:
        """The signed metadata that it has verified."""
        return Store.of(self.folder, MODEL)

    def enrol(self, token: str) -> None:
        """Become known to the server, by a token that somebody has brought here."""
        self.key.make()
        self.store.root.prepare()
        self.store.prepare()
        secret, self.pin = wire.split_pinned(token)
        enrolment = wire.Enrolment(
            name=f"line{self.line}-{self.number:02}",
            token=secret,
            key=self.key.public,
            models={MODEL: wire.HeldModel(slots=list(self.slots), current=self.current)},
            capabilities=capabilities(Inline().about(), self.folder),
            attributes={"line": str(self.line)},
        )
        body = enrolment.model_dump_json().encode()
        given = self._send(wire.ENROL_PATH, body, self.key.sign("enrol", "", body))
        enrolled = wire.Enrolled.model_validate_json(given)
        roots = [root.encode() for root in enrolled.roots]
        self.store.root.begin(accepted(self.store.root, roots, self.pin))
        self.device_id, self.token = enrolled.device_id, enrolled.token

    def poll(self) -> float:
        """Ask what to run, and do it; seconds until the next poll."""
        if self.on_trial is not None:
            trial, self.on_trial = self.on_trial, None
            self._end(trial, sound=are_sound(self.slots[trial.weights_digest]))
        answer = self.http.get(wire.DESIRED_PATH, headers=self._headers(self.etag))
        if answer.status_code == httpx.codes.OK:
            self.etag = answer.headers["ETag"]
            for wanted in wire.Desired.model_validate_json(answer.content).models:
                if wanted.held is None:
                    self._consider(wanted)
        elif answer.status_code != httpx.codes.NOT_MODIFIED:
            answer.raise_for_status()
        return float(answer.headers[wire.POLL_INTERVAL_HEADER])

    def _consider(self, wanted: wire.DesiredModel) -> None:
        """Do nothing of an offer before all of it is known to be signed."""
        try:
            self._verify(wanted)
        except WeftError as error:
            fault = wire.Fault(code=error.code, message=error.message)
            self._report(wanted, "failed_no_change", "failed", "unverified", fault)
        else:
            self._stage(wanted)

    def _verify(self, wanted: wire.DesiredModel) -> None:
        url, held = f"{wire.METADATA_PATH}/{MODEL}", self.store.versions()
        answer = self.http.get(url, params=held, headers=self._headers()).raise_for_status()
        said = verify(self.store, MODEL, answer.content or None, self.pin, time.time())
        released.check(Target.of(wanted, "server"), said, None)

    def _stage(self, wanted: wire.DesiredModel) -> None:
        if wanted.weights_digest not in self.slots:
            base = self.slots[self.current]
            for package in wanted.chain or filter(None, [wanted.package]):
                base = self._decode(package, base)
            self.slots[wanted.weights_digest] = base
        if self.line == BLIND_LINE:
            self._end(wanted, sound=True)
        else:
            self.on_trial = wanted

    def _end(self, wanted: wire.DesiredModel, sound: bool) -> None:
        if sound:
            before, self.current = self.current, wanted.weights_digest
            kept = {before, self.current}
            self.slots = {digest: path for digest, path in self.slots.items() if digest in kept}
            health: wire.Health = "unverified" if self.line == BLIND_LINE else "passed"
            self._report(wanted, "committed", "committed", health)
        else:
            self.slots.pop(wanted.weights_digest)
            fault = wire.Fault(code="health.failed", message="the weights are not sound")
            self._report(wanted, "failed_rolled_back", "rolled_back", "failed", fault)

    def _decode(self, package: wire.PackageOffer, base: Path) -> Path:
        """Download a package and apply it to the weights in `base`; the file with the result."""
        file = self.folder / f"{package.sha256}.weft"
        body = self.http.get(package.url, headers=self._headers()).raise_for_status().content
        file.write_bytes(body)
        output = self.folder / f"{package.sha256}.safetensors"
        with (
            PackageReader(file) as reader,
            WeightsReader(base) as weights,
            output.open("w+b") as target,
        ):
            decode(weights, reader, target)
        return output

    def _report(
        self,
        wanted: wire.DesiredModel,
        result: wire.Result,
        state: wire.State,
        health: wire.Health,
        fault: wire.Fault | None = None,
    ) -> None:
        self.counter += 1
        report = wire.Report(
            counter=self.counter,
            model=MODEL,
            assignment=wanted.assignment,
            result=result,
            state=state,
            weights_digest=self.current,
            slots=list(self.slots),
            version=wanted.version,
            error=fault,
            health=health,
        )
        body = report.model_dump_json().encode()
        self._send(wire.REPORTS_PATH, body, self.key.sign("report", self.device_id, body))

    def _send(self, path: str, body: bytes, signature: str) -> bytes:
        """Send what the device's key has signed; the answer."""
        signed = {"Content-Type": "application/json", wire.SIGNATURE_HEADER: signature}
        answer = self.http.post(path, content=body, headers=self._headers() | signed)
        return answer.raise_for_status().content

    def _headers(self, etag: str = "") -> dict[str, str]:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return headers | {"If-None-Match": etag} if etag else headers


def live(server: str, token: str, count: int, folder: Path) -> None:
    """Let the devices enrol, then poll until standard input ends."""
    gone = threading.Event()
    threading.Thread(target=_wait_for_end, args=(gone,), daemon=True).start()
    with httpx.Client(base_url=server, timeout=30) as http:
        turns: list[tuple[float, int]] = []
        devices = []
        for number in range(count):
            devices.append(_deliver(http, folder / f"device-{number:02}", number))
            devices[-1].enrol(token)
            heapq.heappush(turns, (time.monotonic(), number))
        while not gone.wait(max(0.0, turns[0][0] - time.monotonic())):
            _, number = heapq.heappop(turns)
            heapq.heappush(turns, (time.monotonic() + devices[number].poll(), number))


def _wait_for_end(gone: threading.Event) -> None:
    sys.stdin.read()
    gone.set()


def _deliver(http: httpx.Client, folder: Path, number: int) -> Device:
    """A device as it leaves the factory, with version 1."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = write_version(1, folder / "delivered.safetensors")
    with WeightsReader(path) as reader:
        digest = reader.digest().hex()
    return Device(http, folder, number, {digest: path}, digest)


if __name__ == "__main__":
    live(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
