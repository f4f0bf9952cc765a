"""`weft tokens`: what new devices must show, to be known."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from server.cli.listing import add_list
from server.cli.options import SERVER, Json, Key, Server, connect
from server.cli.output import show_record
from server.errors import BadCommand

app = typer.Typer(help="Tokens by which devices enrol.", no_args_is_help=True)
COLUMNS = ("id", "name", "state", "accept", "tags", "models", "uses", "max_uses", "expires_at")
DAY_SECONDS = 86400

TokenId = Annotated[int, typer.Argument(metavar="ID", help="Id of the token.")]
Days = Annotated[
    float | None, typer.Option("--days", min=0.001, help="How long it is good; by default a week.")
]
ForModels = Annotated[
    list[str] | None,
    typer.Option("--model", help="The only model that may be claimed; may be repeated."),
]
ForEver = Annotated[bool, typer.Option("--for-ever", help="Let it be good until it is revoked.")]


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.")],
    uses: Annotated[
        int | None, typer.Option("--uses", min=1, help="Devices that may enrol by it; else one.")
    ] = None,
    fleet: Annotated[bool, typer.Option("--fleet", help="Any number of devices.")] = False,
    by_hand: Annotated[
        bool, typer.Option("--by-hand", help="Its devices wait for `weft devices accept`.")
    ] = False,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", help="A tag for its devices; may be repeated.")
    ] = None,
    model: ForModels = None,
    days: Days = None,
    for_ever: ForEver = False,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Make a token, by default for one device, for a week; it is shown this once."""
    if fleet and uses is not None:
        raise BadCommand("invalid", "give --uses or --fleet, not both")
    body = {
        "name": name,
        "max_uses": None if fleet else uses or 1,
        "accept": "by_hand" if by_hand else "automatic",
        "tags": tag or [],
        "models": model or None,
        **lifetime(days, for_ever),
    }
    with connect(server, key) as client:
        show_record(client.post("/enrolment_tokens", body), as_json, (*COLUMNS, "token"))


add_list(app, "/enrolment_tokens", COLUMNS, "List the tokens that were made, newest first.")


@app.command("revoke")
def revoke(
    token_id: TokenId, as_json: Json = False, server: Server = SERVER, key: Key = None
) -> None:
    """Let no more devices enrol by a token; those that have stay."""
    with connect(server, key) as client:
        made = client.post(f"/enrolment_tokens/{token_id}/revoke")
        show_record(made, as_json, (*COLUMNS, "revoked_at"))


def lifetime(days: float | None, for_ever: bool) -> dict[str, Any]:
    """The field of the request that says how long; none for the default. Raises BadCommand."""
    if for_ever and days is not None:
        raise BadCommand("invalid", "give --days or --for-ever, not both")
    if for_ever:
        return {"expires_in_seconds": None}
    return {} if days is None else {"expires_in_seconds": max(1, round(days * DAY_SECONDS))}
