"""What the agent and its child say to each other: one JSON object each way.

    to the child    {"task": "digest", "log_level": 20, "arguments": {"path": "/..."}}
    from it         {"result": ...}
                    {"error": {"kind": "WrongWeights", "code": "result.mismatch", "message": "...",
                               "tensor_digests": {...}}}

Nothing here imports numpy, and pydantic only where a promise travels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from edge_agent.errors import WrongWeights
from shared.errors import WeftError

if TYPE_CHECKING:
    from edge_agent.trust import Promise

#: Most bytes of an answer: 4-byte digests of MAX_TENSORS tensors with long names fit.
MAX_ANSWER_BYTES = 1 << 24


def pack_error(error: WeftError) -> dict[str, Any]:
    """The error as plain values."""
    packed = {"kind": type(error).__name__, "code": error.code, "message": error.message}
    if isinstance(error, WrongWeights):
        return packed | {"tensor_digests": error.tensor_digests}
    return packed


def unpack_error(packed: dict[str, Any]) -> WeftError:
    """The error again; raises KeyError or TypeError where it is none that is known here."""
    kinds = {kind.__name__: kind for kind in _kinds(WeftError)}
    kind, message = kinds[packed["kind"]], packed["message"]
    if issubclass(kind, WrongWeights):
        return kind(message, packed["tensor_digests"])
    return kind(packed["code"].removeprefix(f"{kind.area}."), message)


def _kinds(root: type[WeftError]) -> Iterator[type[WeftError]]:
    for kind in root.__subclasses__():
        yield kind
        yield from _kinds(kind)


def pack_promise(promise: Promise) -> dict[str, Any]:
    """The promise as plain values."""
    offer = promise.offer.model_dump(mode="json")
    return {"model": promise.model, "offer": offer, "result": promise.result}


def unpack_promise(packed: dict[str, Any]) -> Promise:
    """The promise again."""
    from edge_agent.trust import Promise
    from shared.wire import PackageOffer

    offer = PackageOffer.model_validate(packed["offer"])
    return Promise(packed["model"], offer, packed["result"])
