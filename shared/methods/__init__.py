"""The methods: a new one is a module here and a line in `METHODS`; see `shared.methods.base`."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from shared.errors import BadMethod, BadPackage
from shared.methods.base import LossyMethod, Method, Options
from shared.methods.direct import Direct
from shared.methods.ka import KnowledgeAugmentation
from shared.methods.lora import LowRankAdaptation
from shared.methods.lossless import Full, Lossless, Xor
from shared.methods.lra import LowRankApproximation
from shared.methods.lru import LowRankUpdate
from shared.methods.ml import MappingLearning, MappingLearningDelta
from shared.methods.rm import RandomMask
from shared.methods.sparse import Sparse, SparseOptions
from shared.package import PackageHeader

__all__ = [
    "METHODS",
    "Direct",
    "KnowledgeAugmentation",
    "Lossless",
    "LossyMethod",
    "Method",
    "SparseOptions",
    "get",
    "of_package",
    "options",
    "wire_id",
]

METHODS: dict[str, Method] = {
    method.id: method
    for method in (
        KnowledgeAugmentation(),
        MappingLearning(),
        MappingLearningDelta(),
        LowRankApproximation(),
        LowRankUpdate(),
        LowRankAdaptation(),
        RandomMask(),
        Sparse(),
        Direct(),
        Xor(),
        Full(),
    )
}


def wire_id(method: Method) -> str:
    """Id and version as packages carry them."""
    return f"{method.id}/{method.version}"


#: What a package may name: today's methods and, once there are any, their earlier versions.
DECODABLE: dict[str, Method] = {wire_id(method): method for method in METHODS.values()}


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


def of_package(header: PackageHeader) -> tuple[Method, Options]:
    """The method and options that a package names; raises BadPackage."""
    method = DECODABLE.get(header.method)
    if method is None:
        raise BadPackage("unknown_method", f"method {header.method!r} is not known here")
    try:
        return method, options(method, header.options)
    except BadMethod as error:
        raise BadPackage("malformed", error.message) from error
