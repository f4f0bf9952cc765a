"""Options that several commands share."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from server.cli.client import DEFAULT_SERVER, Client
from server.cli.key_file import load_key
from server.errors import BadCommand
from shared import methods
from shared.errors import BadConfig, BadMethod

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Server = Annotated[str, typer.Option("--server", envvar="WEFT_SERVER", help="The server's URL.")]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        envvar=["WEFT_KEY", "WEFT_ADMIN_KEY"],
        help="Your key of the server.",
        show_envvar=True,
    ),
]
Limit = Annotated[int, typer.Option("--limit", min=1, max=500, help="Most items to print.")]
Cursor = Annotated[
    str | None, typer.Option("--cursor", help="`next` of the page before, to go on from there.")
]
ModelFilter = Annotated[str | None, typer.Option("--model", help="Only those of this model.")]
Method = Annotated[str, typer.Option("--method", help="See `weft methods list`.")]
Rank = Annotated[int | None, typer.Option("--rank", min=1, help="Rank of the learnt factors.")]
Bits = Annotated[int | None, typer.Option("--bits", help="Bits of a symbol before coding.")]
Proportion = Annotated[
    float | None, typer.Option("--proportion", help="Share of the weights that are learnt.")
]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of the mask or the random side.")]
More = Annotated[
    list[str] | None,
    typer.Option("--option", help="Another option of the method, as NAME=VALUE; may be repeated."),
]

Golden = Annotated[
    int | None,
    typer.Option("--golden", min=1, max=64, help="Golden samples that the package carries."),
]
GoldenShape = Annotated[
    str | None,
    typer.Option("--golden-shape", help="Of one of them, such as 3,32,32; drawn from a seed."),
]

SERVER = DEFAULT_SERVER


def connect(server: str, key: str | None) -> Client:
    """A client of the server's management plane, to be used in a `with` block.

    Without a key it shows the one that `weft login` keeps for this server, if any.
    """
    client = Client(server, key)
    return client if key else client.with_key(load_key(client.server))


def parse_shape(text: str | None) -> list[int] | None:
    """`3,32,32` as numbers. Raises BadConfig."""
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise BadConfig("invalid", f"--golden-shape: {text!r} is no shape as 3,32,32") from error


def parse_pairs(flag: str, pairs: list[str] | None) -> dict[str, Any]:
    """`name=value` words as a dict; values are JSON where they can be, else text.

    Raises BadCommand, which names the `flag` that was given them.
    """
    parsed: dict[str, Any] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise BadCommand("invalid", f"{flag}: {pair!r} is not name=value")
        try:
            parsed[name] = json.loads(value)
        except ValueError:
            parsed[name] = value
    return parsed


def method_options(
    method: str,
    rank: int | None = None,
    bits: int | None = None,
    proportion: float | None = None,
    seed: int | None = None,
    more: list[str] | None = None,
) -> dict[str, Any]:
    """The options that were given, checked against the method. Raises BadMethod."""
    given = {"rank": rank, "bits": bits, "proportion": proportion, "seed": seed}
    given |= parse_pairs("--option", more)
    chosen = {name: value for name, value in given.items() if value is not None}
    known = methods.get(method).Options.model_fields
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise BadMethod("bad_option", f"{method} has no option --{unknown[0]}")
    missing = [name for name, field in known.items() if field.is_required() and name not in chosen]
    if missing:
        raise BadMethod("bad_option", f"{method} needs the option --{missing[0]}")
    methods.options(methods.get(method), chosen)
    return chosen
