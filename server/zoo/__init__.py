"""Architectures: the paper's by name, and users' own as `module:factory`.

A factory takes keyword arguments that JSON can hold and returns a `torch.nn.Module`. A model of the
zoo takes images of shape (N, in_channels, H, W) with values in [-1, 1] and returns logits
(N, classes). The operator's own factories come only from modules that the setting
WEFT_MODEL_MODULES names: a request can choose among them, never bring code along.

    >>> architecture = get("vgg_small")
    >>> module = architecture.build({"classes": 10})

To add one to the zoo: a factory in a module of this package, and a line in `ARCHITECTURES`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from types import ModuleType

from server.errors import BadModel
from server.settings import load_settings
from server.zoo.architecture import Architecture

__all__ = ["ARCHITECTURES", "Architecture", "get", "names"]

#: Name -> `module:factory`. Modules are imported when asked for, because torch takes seconds.
ARCHITECTURES = {
    "vgg_tiny": "server.zoo.vgg:vgg_tiny",
    "vgg_small": "server.zoo.vgg:vgg_small",
    "vgg_medium": "server.zoo.vgg:vgg_medium",
    "tiny_resnet": "server.zoo.resnet:tiny_resnet",
    "resnet18": "server.zoo.resnet:resnet18",
    "resnet50": "server.zoo.resnet:resnet50",
    "mobilenet_v2": "server.zoo.mobilenet:mobilenet_v2",
    "row_lstm": "server.zoo.lstm:row_lstm",
    "small_vit": "server.zoo.vit:small_vit",
}


def names() -> list[str]:
    """The names of the zoo."""
    return list(ARCHITECTURES)


def get(architecture: str, modules: Iterable[str] | None = None) -> Architecture:
    """The architecture of that name, or the factory `module:factory` of an allowed module.

    `modules` are the allowed ones, by default those of the operator's settings. Raises BadModel
    `unknown_architecture`.
    """
    place = ARCHITECTURES.get(architecture)
    if place is None:
        place = _own(architecture, modules)
    module, _, name = place.partition(":")
    try:
        found = importlib.import_module(module)
        factory = getattr(found, name)
    except (ImportError, AttributeError) as error:
        raise BadModel("unknown_architecture", f"{architecture!r}: {error}") from error
    if not _belongs_to(found, name, factory):
        raise BadModel("unknown_architecture", f"{architecture!r} is only imported there")
    return Architecture(architecture, factory)


def _belongs_to(module: ModuleType, name: str, factory: object) -> bool:
    """Whether the module, or one below it, defines the factory, or exports it by `__all__`.

    What a module only uses, such as `subprocess.run`, no request may call.
    """
    home = getattr(factory, "__module__", None) or ""
    is_own = home == module.__name__ or home.startswith(f"{module.__name__}.")
    return callable(factory) and (is_own or name in getattr(module, "__all__", ()))


def _own(architecture: str, modules: Iterable[str] | None) -> str:
    """`architecture` if it is a factory that the operator allows."""
    allowed = frozenset(load_settings().model_modules if modules is None else modules)
    module, colon, name = architecture.partition(":")
    if not colon:
        known = ", ".join(ARCHITECTURES)
        raise BadModel("unknown_architecture", f"no {architecture!r} in the zoo; it has {known}")
    if module not in allowed or not name.isidentifier() or name.startswith("_"):
        raise BadModel("unknown_architecture", f"{architecture!r} is not of an allowed module")
    return architecture
