"""Attacks by whoever may upload weights and make models."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from server.registry import upload
from server.registry.weights import Checked
from server.storage import spool
from tests.attacks.attack import Act, attack, nothing, yes
from tests.attacks.plant import Plant, told

MODELS = "/api/v1/models"
KEYS = "/api/v1/access/keys"


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
