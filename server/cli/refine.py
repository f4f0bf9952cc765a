"""`weft refine` starts a refinement; `weft refinements` looks after those that there are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from server.cli.client import Client, Failed, Refused
from server.cli.curve import Id, curve, show_curve
from server.cli.options import (
    SERVER,
    Bits,
    Cursor,
    Json,
    Key,
    Limit,
    ModelFilter,
    More,
    Proportion,
    Rank,
    Seed,
    Server,
    connect,
    method_options,
    parse_pairs,
)
from server.cli.output import show_page, show_record
from server.errors import BadCommand
from server.publish.budget.goal import AUTO
from shared.wire import Problem

app = typer.Typer(help="Refinements: list, follow, cancel.", no_args_is_help=True)
COLUMNS = (
    "id",
    "model",
    "base",
    "dataset",
    "method",
    "state",
    "progress",
    "error",
    "target",
    "package_id",
    "created_at",
    "finished_at",
)
BRIEF = ("id", "model", "base", "dataset", "state", "target", "package_id", "created_at")

RefineBy = Annotated[
    str,
    typer.Option(
        "--method", help="See `weft methods list`; `auto`: chosen for --max-bytes, --min-accuracy."
    ),
]


def refine(
    model: str,
    dataset: Annotated[str, typer.Option("--dataset", help="What to train on.")],
    method: RefineBy,
    max_bytes: Annotated[
        int | None, typer.Option("--max-bytes", help="auto: most bytes of the package.")
    ] = None,
    min_accuracy: Annotated[
        float | None, typer.Option("--min-accuracy", help="auto: percent to reach.")
    ] = None,
    base: Annotated[
        int | None, typer.Option("--base", min=1, help="Number; the newest by default.")
    ] = None,
    evaluation: Annotated[
        str | None, typer.Option("--evaluation", help="Dataset to measure on.")
    ] = None,
    rank: Rank = None,
    bits: Bits = None,
    proportion: Proportion = None,
    seed: Seed = None,
    option: More = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1)] = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option("--recipe", help="name=value of the recipe; may be given repeatedly."),
    ] = None,
    target_argument: Annotated[
        list[str] | None,
        typer.Option(
            "--target-argument",
            help="name=value of the architecture where the new version differs: classes=10 for "
            "another head; may be given repeatedly.",
        ),
    ] = None,
    follow: Annotated[bool, typer.Option(help="Wait, showing progress.")] = True,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Learn a small change of a version from new data, and publish the update."""
    goal = {"max_bytes": max_bytes, "min_accuracy": min_accuracy}
    if method == AUTO or any(value is not None for value in goal.values()):
        given = {"rank": rank, "bits": bits, "proportion": proportion, "seed": seed}
        options = _goal_options(method, goal | given, option)
    else:
        options = method_options(method, rank, bits, proportion, seed, option)
    body = {
        "model": model,
        "base": base,
        "dataset": dataset,
        "evaluation_dataset": evaluation,
        "method": {"id": method, "options": options},
        "recipe": parse_pairs("--recipe", recipe) | ({"epochs": epochs} if epochs else {}),
        "target_arguments": parse_pairs("--target-argument", target_argument) or None,
    }
    with connect(server, key) as client:
        started = client.post("/refinements", body)
        if follow:
            _follow(client, started["id"], as_json)
        else:
            show_record(started, as_json, COLUMNS)


def _goal_options(method: str, goal: Mapping[str, Any], option: list[str] | None) -> dict[str, Any]:
    """The options of `auto`; the server judges them. Raises BadCommand for another method."""
    if method != AUTO:
        raise BadCommand("invalid", f"--max-bytes and --min-accuracy go with --method {AUTO}")
    given = {name: value for name, value in goal.items() if value is not None}
    return given | parse_pairs("--option", option)


@app.command("list")
def list_refinements(
    model: ModelFilter = None,
    state: Annotated[str | None, typer.Option("--state", help="Only those in this state.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """List refinements, newest first."""
    with connect(server, key) as client:
        query = {"model": model, "state": state, "limit": limit, "cursor": cursor}
        show_page(client.get("/refinements", **query), as_json, BRIEF)


@app.command("show")
def show(id_: Id, as_json: Json = False, server: Server = SERVER, key: Key = None) -> None:
    """Show one refinement."""
    with connect(server, key) as client:
        show_record(client.get(f"/refinements/{id_}"), as_json, COLUMNS)


@app.command("follow")
def follow_one(id_: Id, as_json: Json = False, server: Server = SERVER, key: Key = None) -> None:
    """Wait for a refinement to end, showing progress; its failure is this command's."""
    with connect(server, key) as client:
        _follow(client, id_, as_json)


@app.command("cancel")
def cancel(id_: Id, as_json: Json = False, server: Server = SERVER, key: Key = None) -> None:
    """End a refinement that is queued or running; nothing is published."""
    with connect(server, key) as client:
        show_record(client.post(f"/refinements/{id_}/cancel"), as_json, COLUMNS)


app.command("curve")(curve)


def _follow(client: Client, refinement_id: int, as_json: bool) -> None:
    """Show progress until the refinement has ended, then what came of it."""
    last: dict[str, Any] = {}
    with _bar() as update:
        for last in client.follow(f"/refinements/{refinement_id}/events"):
            update(last)
    if last.get("state") in ("queued", "running"):  # the stream broke off with the server
        last = client.get(f"/refinements/{refinement_id}")
    gained = {} if as_json or last.get("package_id") is None else _gained(client, last)
    show_record({**last, **gained}, as_json, (*COLUMNS, *gained))
    if not as_json and last["method"]["id"] == AUTO and last["state"] in ("succeeded", "failed"):
        with contextlib.suppress(Refused):  # it failed before there was a curve
            show_curve(client.get(f"/refinements/{refinement_id}/curve"))
    if last.get("error"):
        raise _failure(last["error"])


def _gained(client: Client, refinement: Mapping[str, Any]) -> dict[str, Any]:
    """What the update brings, and what it costs to send."""
    model, target = quote(refinement["model"], safe=""), refinement["target"]
    measured = client.get(f"/models/{model}/versions/{target}")["metrics"]
    package = client.get(f"/packages/{refinement['package_id']}")
    names = ("accuracy_before", "accuracy_after")
    return {name: measured.get(name) for name in names} | {"size_bytes": package["size_bytes"]}


def _failure(error: Mapping[str, str]) -> Refused | Failed:
    """The refinement's error as this command's: ours where the server or its machine failed."""
    problem = Problem(code=error["code"], detail=error["message"], todo=error["todo"])
    ours = ("service.", "blob.", "database.", "storage.", "result.", "gate.")
    return Failed(problem) if problem.code.startswith(ours) else Refused(problem)


@contextlib.contextmanager
def _bar() -> Iterator[Any]:
    """A progress line on stderr, fed with the refinement as the server shows it."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"))
    console = Console(stderr=True, highlight=False, markup=False)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("queued", total=None, told="")

        def update(refinement: Mapping[str, Any]) -> None:
            progress = refinement.get("progress") or {}
            bar.update(
                task,
                description=_stage(progress) or refinement["state"],
                total=progress.get("epochs"),
                completed=progress.get("epoch") or 0,
                told=_told(progress),
            )

        yield update


def _stage(progress: Mapping[str, Any]) -> str | None:
    """`refine`, or of the trials of `auto`: `trial 2 of 4: refine`."""
    stage, trial = progress.get("stage"), progress.get("trial")
    return stage if trial is None else f"trial {trial} of {progress['trials']}: {stage}"


def _told(progress: Mapping[str, Any]) -> str:
    names = ("epoch", "epochs", "loss", "accuracy", "seconds_left")
    known = ((name, progress.get(name)) for name in names)
    return "  ".join(
        f"{name} {value:.4g}" for name, value in known if isinstance(value, (int, float))
    )
