"""Attacks on the server by whoever can send it requests."""

from __future__ import annotations

import io
import ssl
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from server.api import streams
from server.history.courier import Courier, Parcel
from server.registry import upload
from server.registry.weights import Checked
from server.storage import spool
from tests.attacks.attack import Act, Seen, anybody, attack, nothing, yes
from tests.attacks.plant import Plant, told
from tests.certificates import Authority
from tests.edge_agent.plane import Plane

MODELS = "/api/v1/models"
KEYS = "/api/v1/access/keys"


@attack(
    "api",
    refused="request.unauthorized",
    told="nobody has this key",
    defence="server.auth.keys:same_hash",
    off=yes,
)
def a_key_with_another_secret(plant: Plant) -> Act:
    """Somebody who has seen the first half of a key makes up the other."""
    known = plant.key("admin")
    forged = known[:-43] + "A" * 43
    return lambda: plant.seen("POST", MODELS, forged, json={"name": "m"})


@attack(
    "api",
    refused="request.unauthorized",
    told="expired at",
    defence="server.auth.keys:now",
    off=lambda: datetime(2000, 1, 1, tzinfo=UTC),
)
def a_key_that_has_expired(plant: Plant) -> Act:
    """Somebody finds a key that was good until lately."""
    key = plant.key("admin", expires_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    _end(plant, "eve")
    return lambda: plant.seen("POST", MODELS, key, json={"name": "m"})


def _end(plant: Plant, name: str) -> None:
    """Have a key end a moment ago."""
    from sqlalchemy import update

    from server.db import writing
    from server.tables import ApiKey, now

    over = now() - timedelta(seconds=1)
    with writing(plant.server.app.state.engine) as session:
        session.execute(update(ApiKey).where(ApiKey.name == name).values(expires_at=over))


@attack(
    "api",
    refused="request.forbidden",
    told="needs the role admin; eve is viewer",
    defence="server.auth.roles:Principal.is_at_least",
    off=yes,
)
def a_viewer_makes_an_admin_of_itself(plant: Plant) -> Act:
    """Somebody who may look asks for a key that may do all."""
    key = plant.key("viewer")
    return lambda: plant.seen("POST", KEYS, key, json={"name": "root", "role": "admin"})


@attack(
    "api",
    refused="model.not_found",
    told="'other'",
    defence="server.auth.scope:_held",
    off=nothing,
)
def a_key_of_one_model_reads_another(plant: Plant) -> Act:
    """Somebody who looks after one model reads another customer's."""
    plant.model("own")
    plant.model("other")
    key = plant.key("operator", models=["own"])
    return lambda: plant.seen("GET", f"{MODELS}/other", key)


@attack(
    "api",
    refused="request.out_of_scope",
    told="held to some models",
    defence="server.auth.guard:_require",
    off=nothing,
)
def a_key_of_one_model_changes_all_groups(plant: Plant) -> Act:
    """Somebody who looks after one model makes a group of all devices."""
    plant.model("own")
    key = plant.key("operator", models=["own"])
    group = {"name": "all", "filter": "name==*"}
    return lambda: plant.seen("POST", "/api/v1/groups", key, json=group)


def _without_keys(plant: Plant) -> None:
    plant.settings = {"require_keys": False}
    plant.do("GET", MODELS, key=None)


@attack(
    "api",
    refused="request.forbidden_origin",
    told="is not this machine's loopback name",
    defence="server.auth.guard:LOOPBACK_NAMES",
    off=frozenset({"evil.example"}),
)
def a_name_that_leads_to_this_machine(plant: Plant) -> Act:
    """A page has its own name point to 127.0.0.1 (DNS rebinding) and speaks to a server there."""
    _without_keys(plant)
    foreign = {"Host": "evil.example"}
    return lambda: plant.seen("POST", MODELS, None, json={"name": "m"}, headers=foreign)


@attack(
    "api",
    refused="request.forbidden_origin",
    told="a page of 'https://evil.example' may not use this server",
    defence="server.auth.guard:_refuse_strangers",
    off=nothing,
)
def a_form_on_a_foreign_page(plant: Plant) -> Act:
    """A page has the browser of an operator post to a server on the same machine (CSRF)."""
    _without_keys(plant)
    foreign = {"Origin": "https://evil.example"}
    return lambda: plant.seen("POST", MODELS, None, json={"name": "m"}, headers=foreign)


def pickled() -> bytes:
    """A checkpoint as torch.save writes it, with a command inside."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"cposix\nsystem\n(S'false'\ntR.")
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


@attack(
    "api",
    refused="weights.malformed",
    told="not a safetensors file",
    defence="server.registry.upload:_check",
    off=lambda *_: Checked({}, "0" * 64, "0" * 64),
)
def weights_that_are_a_program(plant: Plant) -> Act:
    """Somebody uploads a checkpoint that runs a command where it is unpickled."""
    plant.model()
    return lambda: told(plant.upload(pickled()))


@attack(
    "api",
    refused="weights.not_finite",
    told="holds NaN or infinite numbers",
    defence="server.registry.weights:_check_values",
    off=nothing,
)
def weights_that_are_no_numbers(plant: Plant) -> Act:
    """Somebody uploads weights that answer nothing."""
    plant.model()
    poisoned = plant.weights_file(conv__weight=np.full((4, 3, 3, 3), np.nan, np.float32))
    return lambda: told(plant.upload(poisoned.read_bytes()))


@attack(
    "api",
    refused="request.too_large",
    told="more than 500 bytes",
    defence="server.registry.upload:_stream",
    off=lambda request, incoming, _, stream=upload._stream: stream(request, incoming, 1 << 40),
)
def an_upload_without_end(plant: Plant) -> Act:
    """Somebody uploads without telling a length, and goes on."""
    plant.settings["max_upload_bytes"] = 500
    plant.model()
    content = plant.weights_file().read_bytes()
    pieces = (content[at : at + 100] for at in range(0, len(content), 100))
    return lambda: told(plant.upload(pieces))


@attack(
    "api",
    refused="storage.no_space",
    told="bytes, ",
    defence="server.storage.spool:Spool.check_room",
    off=nothing,
)
def an_upload_that_fills_the_disk(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> Act:
    """Somebody uploads until the database, too, has no room left."""
    plant.model()
    monkeypatch.setattr(spool, "RESERVE_BYTES", 1 << 60)  # as if there were that little
    content = plant.weights_file().read_bytes()
    return lambda: told(plant.upload(content))


@attack(
    "api",
    refused="weights.malformed",
    told="more than 65536 tensors",
    defence="shared.weights:MAX_TENSORS",
    off=1 << 40,
)
def weights_of_countless_tensors(plant: Plant) -> Act:
    """Somebody uploads a header that takes twenty times its size in memory."""
    plant.model()
    each = '"%x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    header = ("{" + ",".join(each % number for number in range(70_000)) + "}").encode()
    file = len(header).to_bytes(8, "little") + header
    return lambda: told(plant.upload(file))


@attack(
    "api",
    refused="model.unknown_architecture",
    told="'os:system' is not of an allowed module",
    defence="server.zoo:_own",
    off=lambda architecture, _: architecture,
    then="model.unknown_architecture",
)
def a_model_that_is_a_command(plant: Plant) -> Act:
    """Somebody names a function of the system as the factory of a model."""
    wanted = {"name": "m", "architecture": "os:system", "arguments": {"command": "false"}}
    return lambda: plant.seen("POST", MODELS, json=wanted)


@attack(
    "api",
    refused="model.unknown_architecture",
    told="is only imported there",
    defence="server.zoo:_belongs_to",
    off=yes,
    then="model.unknown_architecture",
)
def a_command_that_an_allowed_module_uses(plant: Plant) -> Act:
    """Somebody names a function that the operator's module has imported for itself."""
    plant.settings["model_modules"] = "tests.attacks.own_models"
    place = "tests.attacks.own_models:run"
    wanted = {"name": "m", "architecture": place, "arguments": {"args": ["true"]}}
    return lambda: plant.seen("POST", MODELS, json=wanted)


@attack(
    "api",
    refused="request.invalid",
    told="nested more than 32 deep",
    defence="server.api.bodies:MAX_DEPTH",
    off=1 << 20,
)
def a_body_nested_too_deep(plant: Plant) -> Act:
    """Somebody sends brackets within brackets, for which writing them again fails."""
    deep = "[" * 200 + "]" * 200
    body = f'{{"name": "m", "buffers": [], "arguments": {{"a": {deep}}}}}'
    kind = {"Content-Type": "application/json"}
    return lambda: plant.seen("POST", MODELS, content=body, headers=kind)


@attack(
    "api",
    refused="request.rate_limited",
    told="too many requests",
    defence="server.api.limits:Buckets.wait",
    off=lambda *_: 0.0,
    then="device.unsigned",
)
def a_thousand_enrolment_tokens(plant: Plant) -> Act:
    """Somebody tries one enrolment token after the other."""
    plant.settings |= {"rate_enrolments": 1.0, "rate_burst": 3.0}
    body = {"name": "cam", "token": "a-token-of-mine"}
    tries = [plant.seen("POST", "/device/v1/enrol", None, json=body) for _ in range(5)]
    assert tries[0].code != "request.rate_limited"
    return lambda: plant.seen("POST", "/device/v1/enrol", None, json=body)


def _register(plant: Plant, uri: str) -> Act:
    return lambda: plant.seen("POST", "/api/v1/datasets", json={"name": "x", "uri": uri})


@attack(
    "api",
    refused="dataset.not_allowed",
    told="is not under an allowed root",
    defence="server.registry.datasets:resolve_uri",
    off=lambda uri, _: uri,
)
def a_path_that_climbs_out(plant: Plant, data: Path) -> Act:
    """Somebody has the server open a file beside the data, by `..`."""
    plant.settings["dataset_roots"] = str(data / "allowed")
    return _register(plant, f"file://{data}/allowed/../secret/x.npz")


@attack(
    "api",
    refused="dataset.not_allowed",
    told="is not under an allowed root",
    defence="server.registry.datasets:_plain",
    off=lambda place: place,
)
def a_link_that_leads_out(plant: Plant, data: Path) -> Act:
    """Somebody who may put files among the data links to one beside them."""
    plant.settings["dataset_roots"] = str(data / "allowed")
    (data / "allowed" / "x.npz").symlink_to(data / "secret" / "x.npz")
    return _register(plant, f"{data}/allowed/x.npz#rows=0:2")


@attack(
    "api",
    refused="dataset.not_allowed",
    told="is not a plain address",
    defence="server.registry.datasets:STORES",
    off=frozenset({"http"}),
    then="dataset.unreadable",
)
def data_at_an_address_that_redirects(plant: Plant) -> Act:
    """Somebody names data on a web server, which then sends this one wherever it likes (SSRF)."""
    plant.settings["dataset_roots"] = "http://127.0.0.1:9/sets"
    return _register(plant, "http://127.0.0.1:9/sets/x.npz")


@attack(
    "api",
    refused="dataset.unreadable",
    told="links are not followed",
    defence="server.registry.folders:_entries",
    off=lambda files, folder: [
        {**each, "type": _type(each)} for each in files.ls(folder, detail=True)
    ],
)
def a_folder_of_links(plant: Plant, data: Path) -> Act:
    """Somebody who may put files among the data links to pictures beside them."""
    plant.settings["dataset_roots"] = str(data / "allowed")
    (data / "secret" / "a.png").write_bytes(_picture())
    (data / "allowed" / "x" / "cat").mkdir(parents=True)
    (data / "allowed" / "x" / "cat" / "a.png").symlink_to(data / "secret" / "a.png")
    return _register(plant, f"{data}/allowed/x")


def _type(entry: dict[str, str]) -> str:
    """A link is what it leads to."""
    return "file" if entry["type"] == "other" else entry["type"]


def _picture() -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (4, 4)).save(file, "png")
    return file.getvalue()


@attack(
    "api",
    refused="dataset.bad_image",
    told="are too many",
    defence="server.registry.bounds:MAX_PIXELS",
    off=1 << 40,
)
def a_picture_that_unpacks_without_end(plant: Plant, data: Path) -> Act:
    """Somebody registers a picture of a few bytes that is 100 megapixels large."""
    from PIL import Image

    plant.settings["dataset_roots"] = str(data / "allowed")
    (data / "allowed" / "x" / "cat").mkdir(parents=True)
    Image.new("1", (8400, 8000)).save(data / "allowed" / "x" / "cat" / "a.png")
    return _register(plant, f"{data}/allowed/x")


@attack(
    "api",
    refused="dataset.bad_label",
    told="3000000 classes are too many",
    defence="server.registry.opening:check_classes",
    off=nothing,
)
def names_without_end(plant: Plant, data: Path) -> Act:
    """Somebody registers a file of some bytes that names millions of classes."""
    plant.settings["dataset_roots"] = str(data / "allowed")
    header = io.BytesIO()
    about = {"descr": "|S0", "fortran_order": False, "shape": (3_000_000,)}
    np.lib.format.write_array_header_1_0(header, about)
    with zipfile.ZipFile(data / "secret" / "x.npz") as source:
        arrays = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(data / "allowed" / "x.npz", "w") as archive:
        for name, content in {**arrays, "classes.npy": header.getvalue()}.items():
            archive.writestr(name, content)
    return _register(plant, f"{data}/allowed/x.npz")


def _hook(plant: Plant, url: str) -> Act:
    plant.settings["webhook_hosts"] = "hooks.example"
    return lambda: plant.seen("POST", "/api/v1/webhooks", json={"url": url})


@attack(
    "api",
    refused="webhook.host_not_allowed",
    told="169.254.169.254:443 is not in WEFT_WEBHOOK_HOSTS",
    defence="server.history.webhook_routes:check_target",
    off=nothing,
)
def a_webhook_into_the_network_of_the_server(plant: Plant) -> Act:
    """Somebody has the server ask the metadata service of its cloud for credentials (SSRF)."""
    return _hook(plant, "https://169.254.169.254/latest/meta-data/")


@attack(
    "api",
    refused="request.rate_limited",
    told="too many requests",
    defence="server.api.protocol:forwarding",
    off=lambda _: {"proxy_headers": True, "forwarded_allow_ips": "*"},
    then="request.unauthorized",
)
def an_address_that_was_made_up(plant: Plant) -> Act:
    """Somebody tries one key after the other, each time under another forwarded address."""
    plant.settings |= {"rate_others": 1.0, "rate_burst": 5.0}

    def act() -> Seen:
        plant.restart()
        for number in range(10):
            forwarded = {"X-Forwarded-For": f"192.0.2.{number}"}
            seen = plant.seen("GET", MODELS, "a-guess", headers=forwarded)
        return seen

    return act


@attack(
    "api",
    refused="service.overloaded",
    told="more requests are in work than this server takes on",
    defence="server.api.streams:MOST_STREAMS",
    off=1 << 30,
)
def followers_without_end(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> Act:
    """Somebody who may look follows the history a thousand times at once."""
    monkeypatch.setattr(streams, "MOST_STREAMS", 3)
    key = plant.key("viewer")
    for _ in range(3):
        plant.follow(key)
    return lambda: plant.follow(key)


@attack(
    "api",
    refused="webhook.untrusted",
    told="certificate verify failed",
    defence="server.history.courier:_tls",
    off=anybody,
)
def a_webhook_whose_name_moves_inside(
    plant: Plant, signer: Authority, tls: Callable[[ssl.SSLContext], Plane]
) -> Act:
    """A receiver that is allowed has its name point to a service inside (DNS rebinding)."""
    inside = tls(signer.server()).url.replace("127.0.0.1", "localhost")
    engine, parcel = plant.server.app.state.engine, _parcel(inside)
    courier = Courier(engine, (inside.removeprefix("https://"),))

    def act() -> Seen:
        outcome = courier._send(parcel)
        untrusted = outcome.status is None
        return Seen("webhook.untrusted" if untrusted else None, outcome.error or "")

    return act


def _parcel(url: str) -> Parcel:
    return Parcel(1, "epoch-1", "device.enrolled", url, "a secret", b"{}")
