"""`weft rollouts`: bring devices to a version."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from server.cli import rollout_options as written
from server.cli.devices import find_device
from server.cli.options import SERVER, Cursor, Json, Key, Limit, ModelFilter, Server, connect
from server.cli.output import Record, show_json, show_page, show_record, show_table
from server.rollouts.strategies import STRATEGIES

app = typer.Typer(help="Rollouts: bring devices to a version.", no_args_is_help=True)
COLUMNS = ("id", "model", "version", "state", "assignments", "reason", "created_at", "finished_at")
ASSIGNMENT = ("device", "phase", "state", "held", "way", "bytes", "error", "since")
WHOLE = (
    *(
        "id",
        "model",
        "version",
        "state",
        "reason",
        "devices",
        "boxed",
        "held",
        "filter",
        "strategy",
    ),
    *("max_open", "success_percent", "abort_rules", "deadline_seconds", "window", "rollback"),
    *("rolls_back_id", "created_at", "started_at", "finished_at"),
)

WAYS = "; ".join(f"`{name}`: {way.about}" for name, way in STRATEGIES.items()) + "."
Id = Annotated[int, typer.Argument(min=1, metavar="ID", help="Id of the rollout.")]


@app.command("start")
def start(
    target: Annotated[list[str], typer.Argument(metavar="MODEL VERSION | ID")],
    text: Annotated[
        str | None, typer.Option("--filter", help="Which devices; see docs/filters.md.")
    ] = None,
    strategy: Annotated[str | None, typer.Option(help=WAYS)] = None,
    phases: Annotated[
        list[str] | None,
        typer.Option("--phase", metavar="PERCENT[:SOAK]", help="Repeat it; `10:1h` is an example."),
    ] = None,
    max_open: Annotated[
        int | None, typer.Option(min=1, help="Most devices that update at a time.")
    ] = None,
    success: Annotated[
        float | None, typer.Option(help="Percent that must succeed before the next phase.")
    ] = None,
    abort_if: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND:PERCENT[:MIN]", help="failed, timed_out or unreached. Repeat it."
        ),
    ] = None,
    never_abort: Annotated[
        bool, typer.Option("--never-abort", help="Without any rule that aborts by itself.")
    ] = False,
    deadline: Annotated[
        str | None, typer.Option(metavar="DURATION", help="How long a device may be silent.")
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(metavar="CRON:DURATION[@ZONE]", help="'0 2 * * *:4h@Europe/Berlin'"),
    ] = None,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="It may lead to an older version.")
    ] = False,
    hold: Annotated[
        bool, typer.Option("--hold", help="Only make it ready; `start ID` begins it.")
    ] = False,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Bring devices of a model to a version, or start a rollout that is ready."""
    if len(target) == 1:
        _order(target[0], "start", as_json, server, key)
        return
    if len(target) != 2 or not target[1].isdigit():
        raise typer.BadParameter("give a model and the number of a version, or the id of a rollout")
    body: dict[str, Any] = {
        "filter": text,
        "strategy": strategy,
        "phases": [written.phase(p) for p in phases] if phases else None,
        "max_open": max_open,
        "success_percent": success,
        "abort_rules": [written.abort_rule(r) for r in abort_if] if abort_if else None,
        "deadline_seconds": written.duration(deadline) if deadline else None,
        "window": written.window(window) if window else None,
    }
    given = {name: value for name, value in body.items() if value is not None}
    given |= {"abort_rules": []} if never_abort else {}
    given |= {"model": target[0], "version": int(target[1]), "rollback": rollback}
    with connect(server, key) as client:
        show_record(client.post("/rollouts", given | {"start": not hold}), as_json, COLUMNS)


@app.command("list")
def list_rollouts(
    model: ModelFilter = None,
    state: Annotated[str | None, typer.Option("--state", help="Only those in this state.")] = None,
    text: Annotated[
        str | None, typer.Option("--filter", help="Only those that match; see docs/filters.md.")
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """List rollouts, newest first."""
    with connect(server, key) as client:
        query = {"model": model, "state": state, "filter": text, "limit": limit, "cursor": cursor}
        show_page(client.get("/rollouts", **query), as_json, COLUMNS)


@app.command("show")
def show(id_: Id, as_json: Json = False, server: Server = SERVER, key: Key = None) -> None:
    """Show one rollout, phase by phase."""
    with connect(server, key) as client:
        rollout = client.get(f"/rollouts/{id_}")
    if as_json:
        show_json(rollout)
        return
    reason = rollout["reason"]
    told = f"{reason['message']} [{reason['code']}]" if reason else None
    show_record(rollout | {"reason": told}, False, WHOLE)
    show_table(map(_phase_row(rollout), rollout["progress"]), PHASE)


PHASE = ("phase", "percent", "soak", "up to", "admitted", "devices", "now")


def _phase_row(rollout: Record) -> Any:
    """What the table of phases says of one."""

    def row(progress: Record) -> Record:
        number, percent = progress["phase"], progress["percent"]
        is_now = number == rollout["phase"] and rollout["state"] in ("active", "paused")
        return {
            "phase": number + 1,
            "percent": None if percent is None else f"{percent:g}%",
            "soak": f"{progress['soak_seconds']} s",
            "up to": progress["quota"],
            "admitted": progress["admitted"],
            "devices": progress["assignments"],
            "now": _stage(rollout) if is_now else "",
        }

    return row


def _stage(rollout: Record) -> str:
    return "soaking" if rollout["phase_done_at"] else "under way"


@app.command("devices")
def assignments(
    id_: Id,
    state: Annotated[str | None, typer.Option("--state", help="Only those in this state.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """List what has become of each device in a rollout."""
    with connect(server, key) as client:
        query = {"state": state, "limit": limit, "cursor": cursor}
        page = client.get(f"/rollouts/{id_}/assignments", **query)
    if not as_json:
        page["items"] = list(map(_device_row, page["items"]))
    show_page(page, as_json, ASSIGNMENT)


def _device_row(found: Record) -> Record:
    """What the table of devices says of one, in about 100 columns."""
    moments = (found[name] for name in ("finished_at", "offered_at", "admitted_at"))
    since = next((moment for moment in moments if moment is not None), None)
    # Phases are counted from 1, as in the table of phases.
    return {**found, "phase": found["phase"] + 1, "bytes": found["size_bytes"], "since": since}


@app.command("pause")
def pause(id_: Id, as_json: Json = False, server: Server = SERVER, key: Key = None) -> None:
    """Admit and offer nothing more for now; what was offered goes on."""
    _order(str(id_), "pause", as_json, server, key)


@app.command("resume")
def resume(id_: Id, as_json: Json = False, server: Server = SERVER, key: Key = None) -> None:
    """Go on after a pause."""
    _order(str(id_), "resume", as_json, server, key)


@app.command("abort")
def abort(id_: Id, as_json: Json = False, server: Server = SERVER, key: Key = None) -> None:
    """Take back what has not ended; devices that have committed keep the new weights."""
    _order(str(id_), "abort", as_json, server, key)


@app.command("retry")
def retry(
    id_: Id,
    device: Annotated[
        str | None, typer.Option("--device", help="Id or name of one device; else all that failed.")
    ] = None,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Try devices that failed, rolled back or timed out once more."""
    with connect(server, key) as client:
        which = find_device(client, device)["id"] if device else None
    _order(str(id_), "retry", as_json, server, key, {"device_id": which})


@app.command("roll-back")
def roll_back(
    id_: Id,
    version: Annotated[
        int | None, typer.Option("--version", min=1, help="By default, what most of them had.")
    ] = None,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Take the devices of a rollout back to the version that they had before."""
    _order(str(id_), "roll_back", as_json, server, key, {"version": version})


def _order(
    id_: str,
    what: str,
    as_json: bool,
    server: str,
    key: str | None,
    body: dict[str, Any] | None = None,
) -> None:
    if not id_.isdigit():
        raise typer.BadParameter(f"{id_!r} is no id of a rollout")
    with connect(server, key) as client:
        show_record(client.post(f"/rollouts/{id_}/{what}", body), as_json, COLUMNS)
