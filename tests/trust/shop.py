"""What the tests of the repository stand on; `TufDevice` follows the specification."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from securesystemslib.signer import Signer
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session
from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import TargetFile
from tuf.ngclient import FetcherInterface, Updater

from server.db import reading, writing
from server.settings import Settings
from server.tables import Model, Package, TrustMetadata, TrustRoot, Version
from server.trust.documents import sign
from server.trust.keys import keys_in, load_signer, make_signer, write_private
from server.trust.opening import open_trust
from server.trust.passphrases import NOBODY
from server.trust.repository import Trust
from shared.metadata import ROLES, known_bytes, package_path, unpack, version_path

SCHEMA = {"w": {"dtype": "F32", "shape": [4]}}
STREAM = 4 + 1 + 1 + 3 + 1 + 8 + 8 + 16  # bytes of it under the weights digest


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Shop:
    """Models in a database, and what tests do with their repositories."""

    packages: Sequence[str] = ()
    """Those that the test has built."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine, self.settings = engine, settings
        self.trust = open_trust(settings, engine)

    @property
    def next_root(self) -> Path:
        """Where `prepare_root` keeps it."""
        return self.settings.data_dir / "next.root.json"

    def prepare_root(self) -> None:
        """Make the next root: with other keys of snapshot and timestamp, on the server."""
        folder = self.trust.keyring.folder
        with reading(self.engine) as session:
            root = deepcopy(self.trust.root(session))
        signers = self.trust.keyring.signers("root", root.roles["root"])
        for role in ("snapshot", "timestamp"):
            new = make_signer()
            write_private(folder, role, new)
            root.revoke_key(root.roles[role].keyids[0], role)
            root.add_key(new.public_key, role)
        root.version += 1
        self.next_root.write_bytes(sign(root, signers))

    def reopen(self) -> Trust:
        """As another process has it."""
        self.trust = open_trust(self.settings, self.engine)
        return self.trust

    @contextmanager
    def writing(self) -> Iterator[Session]:
        with writing(self.engine) as session:
            yield session

    def register(self, name: str, versions: int) -> None:
        with self.writing() as session:
            session.add(Model(name=name))
        for _ in range(versions):
            self.upload(name)

    def upload(self, name: str = "m", schema: Any = None) -> int:
        """A new version; its number."""
        with self.writing() as session:
            model = find_model(session, name)
            known = select(Version).where(Version.model_id == model.id)
            number = len(session.scalars(known).all()) + 1
            version = Version(
                model_id=model.id,
                number=number,
                weights_digest=sha(f"{name} {number}"),
                blob=sha(f"file of {name} {number}"),
                size_bytes=16,
                schema=schema or SCHEMA,
                schema_digest=sha("schema"),
                source="uploaded",
            )
            session.add(version)
            return number

    def release(self, *numbers: int, name: str = "m", keep: int = 8) -> None:
        for number in numbers:
            with self.writing() as session:
                self.trust.release(session, find_version(session, number, name), keep)

    def build(self, target: int, base: int | None = None, name: str = "m", note: str = "") -> str:
        """A published package; its SHA-256."""
        sha256 = sha(f"package {name} {base} {target} {note}")
        with self.writing() as session:
            package = Package(
                model_id=find_model(session, name).id,
                base_version_id=base and find_version(session, base, name).id,
                target_version_id=find_version(session, target, name).id,
                method="ka" if base else "full",
                sha256=sha256,
                size_bytes=1000 + target,
                state="published",
            )
            session.add(package)
        return sha256

    def withdraw(self, number: int, name: str = "m") -> bool:
        with self.writing() as session:
            return self.trust.withdraw(session, find_version(session, number, name))

    def take_offline(self, *roles: str) -> dict[str, Signer]:
        """The private keys of these roles, which the server has no more; by role."""
        folder = self.trust.keyring.folder
        files = [f for f in keys_in(folder) if f.role in roles and f.is_private]
        taken = {file.role: load_signer(file.path, NOBODY) for file in files}
        for file in files:
            file.path.unlink()
        self.reopen()
        return taken

    def offer(self, *shas: str) -> None:
        """As the planner does before it offers packages."""
        with self.writing() as session:
            self.trust.ensure_listed(session, [find_package(session, sha256) for sha256 in shas])


def rows_of(shop: Shop) -> dict[str, list[tuple[Any, ...]]]:
    """All that is published, and what versions say of themselves."""
    roots = select(TrustRoot.version, TrustRoot.content).order_by(TrustRoot.version)
    columns = (TrustMetadata.model_id, TrustMetadata.role, TrustMetadata.version)
    published = select(*columns, TrustMetadata.content).order_by(*columns)
    said = select(Version.id, Version.released_at, Version.withdrawn_at).order_by(Version.id)
    with reading(shop.engine) as session:
        queries = {"roots": roots, "metadata": published, "versions": said}
        return {name: [tuple(r) for r in session.execute(q)] for name, q in queries.items()}


def find_model(session: Session, name: str = "m") -> Model:
    return session.scalars(select(Model).where(Model.name == name)).one()


def find_version(session: Session, number: int, name: str = "m") -> Version:
    model = find_model(session, name)
    query = select(Version).where(Version.model_id == model.id, Version.number == number)
    return session.scalars(query).one()


def find_package(session: Session, sha256: str) -> Package:
    return session.scalars(select(Package).where(Package.sha256 == sha256)).one()


class Files(FetcherInterface):
    """Serves files of a dictionary by the names that a client asks for."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.rpartition("/")[2]
        if name not in self.files:
            raise DownloadHTTPError(f"no {name}", 404)
        yield self.files[name]


class TufDevice:
    """Holds metadata in a folder, and asks the server as a device does."""

    def __init__(self, shop: Shop, folder: Path, model: str) -> None:
        self.shop, self.folder, self.model = shop, folder, model
        folder.mkdir()
        with reading(shop.engine) as session:
            self.first = shop.trust.roots(session)[0]
        (folder / "root.json").write_bytes(self.first)
        self.answer: bytes | None = None

    @property
    def held(self) -> dict[str, bytes]:
        paths = {role: self.folder / f"{role}.json" for role in ROLES}
        return {role: path.read_bytes() for role, path in paths.items() if path.exists()}

    @property
    def versions(self) -> dict[str, int]:
        """Of the roles held."""
        return {role: _version(content) for role, content in self.held.items()}

    def ask(self) -> dict[str, bytes]:
        """The files that a device has after the answer, as a client asks for them."""
        held = self.held
        with reading(self.shop.engine) as session:
            model = find_model(session, self.model)
            self.answer = self.shop.trust.answer(session, model, self.versions)
        files = {_name(role, _version(content)): content for role, content in held.items()}
        for file in unpack(self.answer, known_bytes(held)) if self.answer else ():
            files[_name(file.role, file.version)] = file.content
        return files

    def refresh(self, *paths: str, at: datetime | None = None) -> dict[str, TargetFile]:
        """Fetch and verify all; what is found of the target paths. Raises what ngclient raises."""
        updater = Updater(
            str(self.folder), "http://none/", fetcher=Files(self.ask()), bootstrap=None
        )
        updater._trusted_set.reference_time = at or datetime.now(UTC)
        updater.refresh()
        found = {path: updater.get_targetinfo(path) for path in (*paths, package_path("none"))}
        return {path: target for path, target in found.items() if target is not None}

    def lists(self, *wanted: int | str) -> list[int | str]:
        """Those of these versions (numbers) and packages (SHA-256) that are listed."""
        paths = {w: version_path(w) if isinstance(w, int) else package_path(w) for w in wanted}
        found = self.refresh(*paths.values())
        return [one for one, path in paths.items() if path in found]


def _name(role: str, version: int) -> str:
    return "timestamp.json" if role == "timestamp" else f"{version}.{role}.json"


def _version(content: bytes) -> int:
    return int(json.loads(content)["signed"]["version"])
