"""The methods. A new one is one module here and one line in `METHODS`; see `shared.methods.base`."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from shared.errors import BadMethod, BadPackage
from shared.methods.base import LossyMethod, Method, Options
from shared.methods.direct import Direct
from shared.methods.ka import KnowledgeAugmentation
from shared.methods.lossless import Full, Lossless, Xor
from shared.methods.lra import LowRankApproximation
from shared.methods.lru import LowRankUpdate
from shared.methods.ml import MappingLearning, MappingLearningDelta
from shared.methods.rm import RandomMask
from shared.package import MethodHeader

__all__ = ["METHODS", "Lossless", "LossyMethod", "Method", "get", "of_package", "options"]

METHODS: dict[str, Method] = {
    method.id: method
    for method in (
        KnowledgeAugmentation(),
        MappingLearning(),
        MappingLearningDelta(),
        LowRankApproximation(),
        LowRankUpdate(),
        RandomMask(),
        Direct(),
        Xor(),
        Full(),
    )
}


def get(id_: str) -> Method:
    """The method of that id; raises BadMethod."""
    if id_ not in METHODS:
        raise BadMethod("unknown", f"no method {id_!r}; there are {', '.join(METHODS)}")
    return METHODS[id_]


def options(method: Method, given: dict[str, Any]) -> Options:
    """The method's options from plain values; raises BadMethod."""
    try:
        return method.Options.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadMethod("bad_option", f"{method.id}: {place}: {first['msg']}") from error


def of_package(header: MethodHeader) -> tuple[Method, Options]:
    """The method and options that a package names; raises BadPackage."""
    method = METHODS.get(header.id)
    if method is None or method.version != header.version:
        known = f"{header.id!r} version {header.version}"
        raise BadPackage("unknown_method", f"method {known} is not known here")
    try:
        return method, options(method, header.options)
    except BadMethod as error:
        raise BadPackage("malformed", error.message) from error
