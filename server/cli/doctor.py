"""`weft doctor`: looks at everything a server stands on, and says what to do about what is wrong.

It works by the server's settings, on its machine, whether the server runs or not, and changes
nothing. Exit status: 0 all is well, 1 there are warnings, 2 something is broken.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.cli.options import Json
from server.cli.output import show_json, show_table
from server.errors import ServerError
from server.settings import load_settings

Full = Annotated[bool, typer.Option("--full", help="Read every blob whole, not only a sample.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="The server's data folder.")]

STATUS = {"ok": 0, "warn": 1, "fail": 2}


def doctor(full: Full = False, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Check settings, database, blobs, leases, secrets and what else the server needs."""
    # Here, as in other commands that open the database: most speak HTTP only, and start sooner.
    from server.cli.findings import Finding, surroundings
    from server.cli.findings_stored import stored
    from server.cli.findings_trust import key_files

    settings = load_settings(**({"data_dir": data_dir} if data_dir else {}))
    findings = [*surroundings(settings), *key_files(settings), *stored(settings, full)]
    worst = max((finding.state for finding in findings), key=STATUS.__getitem__)
    if as_json:
        show_json({"state": worst, "checks": [finding.record() for finding in findings]})
    else:
        show_table(map(Finding.record, findings), ("check", "state", "found", "todo"))
    if worst == "fail":
        broken = [finding.check for finding in findings if finding.state == "fail"]
        raise ServerError("broken", f"broken: {', '.join(broken)}")
    raise typer.Exit(STATUS[worst])
