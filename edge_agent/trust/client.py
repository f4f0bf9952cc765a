"""Signed metadata are checked by `tuf.ngclient`; what is trusted lies in a `Store`.

ngclient does all the checks of the TUF specification in their order. What it does with files is
replaced, in private methods of its own: it rewrites them at each start and syncs none. So the
version of `tuf` is bounded in `pyproject.toml`, and tests hold that no file is touched behind
`edge_agent.files`.

Two checks are ours. All metadata but the root name their model: a server signs them all with the
same keys, and those of one model must not pass for another's. A timestamp says when it was signed:
from then on that is the least time that is believed, whatever the clock of the device says.
"""

from __future__ import annotations

import contextlib
import logging
from datetime import datetime, timezone

from tuf.api.exceptions import DownloadHTTPError, ExpiredMetadataError, RepositoryError
from tuf.api.metadata import Metadata, Signed, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError
from tuf.ngclient import FetcherInterface, Updater

from edge_agent.trust.released import Listed, Released
from edge_agent.trust.store import Store
from shared.metadata import (
    ISSUED_FIELD,
    MODEL_FIELD,
    PACKAGES,
    ROLES,
    ROOT,
    TARGETS,
    TIMESTAMP,
    package_path,
    version_path,
)

_NOT_THERE = frozenset({403, 404})
_log = logging.getLogger(__name__)


class OtherModel(RepositoryError):
    """The metadata are those of another model."""


class Client(Updater):
    """Raises what ngclient does: RepositoryError, DownloadError; and NoSpace."""

    def __init__(
        self,
        root: bytes,
        store: Store,
        fetcher: FetcherInterface,
        now: float | None = None,
        *,
        model: str | None = None,
        url: str = "",
    ) -> None:
        """`root`: what is believed, which may be expired. `now`: Unix time, by default the clock's.

        `model`: which one all metadata must name; None: any, and none. `url`: as the fetcher's.
        """
        self._store, self._model = store, model
        super().__init__("", url, fetcher=fetcher, bootstrap=root)
        if now is not None:
            self._trusted_set.reference_time = datetime.fromtimestamp(now, timezone.utc)

    def released(self) -> Released:
        """Bring what is held up to date, and say what it says."""
        self.refresh()
        targets = self._trusted_set.targets
        versions = {}
        for path, file in targets.targets.items():
            number = path.rpartition("/")[2]
            if number.isdecimal() and path == version_path(int(number)):
                versions[int(number)] = str(file.hashes.get("sha256"))
        delegated = targets.delegations.roles if targets.delegations else None
        packages = self._packages() if PACKAGES in (delegated or ()) else {}
        trusted = [self._trusted_set[role] for role in ROLES if role in self._trusted_set]
        return Released(versions, packages, min(each.expires.timestamp() for each in trusted))

    def _packages(self) -> dict[str, Listed]:
        found = {}
        for path in self._load_targets(PACKAGES, TARGETS).targets:
            sha256, file = path.rpartition("/")[2], self.get_targetinfo(path)
            if file and path == package_path(sha256) and file.hashes.get("sha256") == sha256:
                found[sha256] = _listed(file)
        return found

    def _load_root(self) -> None:
        """Follow the chain of roots, each signed by the one before it as well."""
        begin = self._trusted_set.root.version + 1
        for version in range(begin, begin + self.config.max_root_rotations):
            try:
                data = self._download_metadata(ROOT, self.config.root_max_length, version)
            except DownloadHTTPError as error:
                if error.status_code not in _NOT_THERE:
                    raise
                return  # this is the newest
            self._trusted_set.update_root(data)
            self._persist_root(version, data)

    def _load_timestamp(self) -> None:
        for content in self._store.timestamps():
            with contextlib.suppress(RepositoryError, DeserializationError):
                metadata = Metadata[Timestamp].from_bytes(content)
                signatures = metadata.signatures
                self._trusted_set.root.verify_delegate(TIMESTAMP, metadata.signed_bytes, signatures)
                self._believe_that_it_was(_issued(metadata.signed))
        super()._load_timestamp()
        self._believe_that_it_was(_issued(self._trusted_set.timestamp))
        # ngclient would ask for another snapshot first, and then say that there is none.
        for trusted in (self._trusted_set.root, self._trusted_set.timestamp):
            check_fresh(trusted, self._trusted_set.reference_time)

    def _believe_that_it_was(self, issued: datetime | None) -> None:
        if issued and issued > self._trusted_set.reference_time:
            _log.info("the clock is behind: it is %s at least", issued.isoformat())
            self._trusted_set.reference_time = issued

    def _load_targets(self, role: str, parent_role: str) -> Targets:
        targets = super()._load_targets(role, parent_role)
        check_model(targets, self._model)
        return targets

    def _load_local_metadata(self, rolename: str) -> bytes:
        content = self._store.read(rolename)
        if content is None:
            raise FileNotFoundError(rolename)
        return content

    def _persist_metadata(self, rolename: str, data: bytes) -> None:
        check_model(self._trusted_set[rolename], self._model)
        self._store.write(rolename, data)

    def _persist_root(self, version: int, data: bytes) -> None:  # noqa: ARG002 - as ngclient calls it
        self._store.write(ROOT, data)

    def _update_root_symlink(self) -> None:
        """There is none: only the newest root is kept."""


def check_model(signed: Signed, model: str | None) -> None:
    """Raise OtherModel where metadata are not those of `model`."""
    found = signed.unrecognized_fields.get(MODEL_FIELD)
    if model is not None and found != model:
        raise OtherModel(f"{signed.type} is of model {found!r}, not of {model}")


def check_fresh(signed: Signed, now: datetime) -> None:
    """Raise ExpiredMetadataError where it is known by now that it has expired."""
    if signed.is_expired(now):
        raise ExpiredMetadataError(f"{signed.type}.json is expired since {signed.expires}")


def _issued(signed: Signed) -> datetime | None:
    """When a timestamp was signed, if it says so; always before it expires."""
    told = signed.unrecognized_fields.get(ISSUED_FIELD)
    if told is None:
        return None
    try:
        issued = datetime.fromisoformat(str(told).replace("Z", "+00:00"))
        return min(issued.astimezone(timezone.utc), signed.expires)
    except ValueError as error:
        raise RepositoryError(f"{ISSUED_FIELD} is no time: {told!r}") from error


def _listed(file: TargetFile) -> Listed:
    custom = file.custom if isinstance(file.custom, dict) else {}
    told = {name: custom.get(name) for name in ("base", "result", "method")}
    base = None if told["base"] is None else str(told["base"])
    return Listed(file.length, base, str(told["result"]), str(told["method"]))
