"""`weft webhooks`: who hears of events."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from server.cli.client import Client
from server.cli.listing import add_list
from server.cli.options import SERVER, Cursor, Json, Key, Limit, Server, connect
from server.cli.output import say, show_page, show_record

app = typer.Typer(help="Webhooks: who hears of events.", no_args_is_help=True)

COLUMNS = ("id", "url", "filter", "state", "deliveries", "created_at")
DELIVERY = ("id", "kind", "event_id", "state", "attempts", "status", "error", "due_at")

#: Seconds that `test` waits for the first attempt, and between two looks.
TEST_SECONDS = 30.0
LOOK_SECONDS = 0.25

Id = Annotated[int, typer.Argument(min=1, metavar="ID", help="Id of the webhook.")]
Filter = Annotated[
    str | None, typer.Option("--filter", help="Which events, as RSQL; without it, all.")
]
Secret = Annotated[
    str | None,
    typer.Option(
        "--secret",
        envvar="WEFT_WEBHOOK_SECRET",
        help="Key of the signatures, 16 to 200 characters; without it, one is made.",
    ),
]


@app.command("create")
def create(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where to send; https://...")],
    wanted: Filter = None,
    secret: Secret = None,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Have events sent to an address; the secret is shown this once."""
    with connect(server, key) as client:
        body = {"url": url, "filter": wanted, "secret": secret}
        show_record(client.post("/webhooks", body), as_json, (*COLUMNS, "secret"))


add_list(app, "/webhooks", COLUMNS, "List webhooks, oldest first.")


@app.command("show")
def show(id_: Id, as_json: Json = False, server: Server = SERVER, key: Key = None) -> None:
    """Show one webhook, with its deliveries counted by state."""
    with connect(server, key) as client:
        show_record(client.get(f"/webhooks/{id_}"), as_json, COLUMNS)


@app.command("update")
def update(
    id_: Id,
    url: Annotated[str | None, typer.Option("--url", help="Where to send from now on.")] = None,
    wanted: Filter = None,
    no_filter: Annotated[bool, typer.Option("--no-filter", help="Send all events.")] = False,
    secret: Secret = None,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Change a webhook; what is not given stays."""
    given = {"url": url, "filter": wanted, "secret": secret}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if no_filter:
        changes["filter"] = None
    _change(id_, changes, as_json, server, key)


@app.command("pause")
def pause(id_: Id, as_json: Json = False, server: Server = SERVER, key: Key = None) -> None:
    """Send nothing for now; nothing is lost."""
    _change(id_, {"state": "paused"}, as_json, server, key)


@app.command("resume")
def resume(id_: Id, as_json: Json = False, server: Server = SERVER, key: Key = None) -> None:
    """Send again, first all that came in between."""
    _change(id_, {"state": "active"}, as_json, server, key)


@app.command("delete")
def delete(id_: Id, as_json: Json = False, server: Server = SERVER, key: Key = None) -> None:
    """Send nothing more to it, not even what waits."""
    with connect(server, key) as client:
        client.delete(f"/webhooks/{id_}")
    show_record({"id": id_, "state": "deleted"}, as_json)


@app.command("test")
def send_test(id_: Id, as_json: Json = False, server: Server = SERVER, key: Key = None) -> None:
    """Send a test event, and show how the first attempt went."""
    with connect(server, key) as client:
        sent = client.post(f"/webhooks/{id_}/test")
        shown = _attempted(client, id_, sent["id"]) or sent
    show_record(shown, as_json, DELIVERY)
    if not shown["attempts"]:
        say("it has not been sent yet; look again with `weft webhooks deliveries`")


@app.command("deliveries")
def deliveries(
    id_: Id,
    state: Annotated[
        str | None, typer.Option("--state", help="pending, delivered or given_up.")
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """List what was sent and what waits, newest first."""
    with connect(server, key) as client:
        query = {"state": state, "limit": limit, "cursor": cursor}
        show_page(client.get(f"/webhooks/{id_}/deliveries", **query), as_json, DELIVERY)


@app.command("redeliver")
def redeliver(
    id_: Id,
    delivery: Annotated[int, typer.Argument(min=1, help="Id of the delivery.")],
    as_json: Json = False,
    server: Server = SERVER,
    key: Key = None,
) -> None:
    """Send a delivery once more, with the same id and the same bytes."""
    with connect(server, key) as client:
        path = f"/webhooks/{id_}/deliveries/{delivery}/redeliver"
        show_record(client.post(path), as_json, DELIVERY)


def _change(id_: int, changes: dict[str, Any], as_json: bool, server: str, key: str | None) -> None:
    with connect(server, key) as client:
        show_record(client.patch(f"/webhooks/{id_}", changes), as_json, COLUMNS)


def _attempted(client: Client, webhook: int, delivery: int) -> Any:
    """The delivery once it was tried, or nothing if that takes too long."""
    end = time.monotonic() + TEST_SECONDS
    while time.monotonic() < end:
        items = client.get(f"/webhooks/{webhook}/deliveries", limit=500)["items"]
        found = [item for item in items if item["id"] == delivery and item["attempts"]]
        if found:
            return found[0]
        time.sleep(LOOK_SECONDS)
    return None
