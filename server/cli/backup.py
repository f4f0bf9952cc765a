"""`weft backup` and `weft restore`: on the server's machine, with its settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.cli.options import Json
from server.cli.output import show_record, transfer
from server.lock import only_process
from server.settings import Settings, load_settings
from server.storage import open_store

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from server.backup.folder import Manifest

Folder = Annotated[Path, typer.Argument(help="Folder of the backup.", show_default=False)]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="The server's data folder.")]
Verify = Annotated[
    bool, typer.Option("--verify", help="Take none: check every byte of the one that is there.")
]


def backup(
    folder: Folder, verify: Verify = False, data_dir: DataDir = None, as_json: Json = False
) -> None:
    """Back up database and blobs while the server runs.

    Into the folder of an earlier backup only new blobs are copied; then it takes its place.
    """
    from server import db
    from server.backup.folder import BackupFolder
    from server.backup.take import take
    from server.backup.verify import verify as check

    target = BackupFolder(folder)
    if verify:
        with transfer("blobs", target.load().blob_bytes) as advance:
            manifest = check(target, advance)
        _show(manifest, folder, "whole", as_json)
        return
    settings = _settings(data_dir)
    with _closing(db.open_existing(settings.url)) as engine, transfer("blobs", None) as advance:
        manifest = take(engine, open_store(settings, cached=False), target, advance)
    _show(manifest, folder, "taken", as_json)


def restore(folder: Folder, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Put a backup into an empty database and the blob store; no server may run.

    They may be of another kind than those it was taken from: the way from SQLite to PostgreSQL.
    """
    from server import db
    from server.backup.folder import BackupFolder
    from server.backup.restore import restore as put_back

    source, settings = BackupFolder(folder), _settings(data_dir)
    total = source.load().blob_bytes
    with ExitStack() as stack:
        if settings.is_sqlite:
            stack.enter_context(only_process(settings.data_dir))
        engine = stack.enter_context(_closing(db.open_engine(settings.url)))
        if not db.schema_revision(engine):
            db.migrate(settings.url)
        advance = stack.enter_context(transfer("blobs", total))
        manifest = put_back(source, engine, open_store(settings, cached=False), advance)
    _show(manifest, folder, "restored", as_json)


def _settings(data_dir: Path | None) -> Settings:
    return load_settings(**({"data_dir": data_dir} if data_dir else {}))


@contextmanager
def _closing(engine: Engine) -> Iterator[Engine]:
    try:
        yield engine
    finally:
        engine.dispose()


def _show(manifest: Manifest, folder: Path, state: str, as_json: bool) -> None:
    record: dict[str, Any] = {
        "folder": str(folder),
        "state": state,
        "taken_at": manifest.taken_at.isoformat().replace("+00:00", "Z"),
        "rows": sum(table.rows for table in manifest.tables.values()),
        "blobs": manifest.blobs,
        "blob_bytes": manifest.blob_bytes,
        "weft": manifest.tool_version,
    }
    show_record(record, as_json)
