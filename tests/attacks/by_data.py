"""Attacks by whoever may name data and webhooks, or put files among the data."""

from __future__ import annotations

import io
import ssl
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from server.history.courier import Courier, Parcel
from tests.attacks.attack import Act, Seen, anybody, attack, nothing
from tests.attacks.plant import Plant
from tests.certificates import Authority
from tests.edge_agent.plane import Plane

MODELS = "/api/v1/models"
KEYS = "/api/v1/access/keys"


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
