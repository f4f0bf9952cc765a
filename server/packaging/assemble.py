"""Sent tensors -> a package file, decoded again by the device's own loop before anybody sees it."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

from server.packaging.replacing import replacing
from server.packaging.sent import UNCHANGED, Sent
from shared import coding, methods
from shared.decode import decode, reconstitute
from shared.golden import Golden
from shared.methods.base import Options
from shared.package import DIGEST_BYTES, FORMAT, PackageHeader, PackageReader, PackageWriter
from shared.tensors import Array, Schema
from shared.weights import WeightsReader

#: From a weights file to the golden samples that its package carries.
MakeGolden: TypeAlias = Callable[[Path], Golden]


@dataclass(frozen=True)
class TensorReport:
    """How one tensor is sent: plan, number of symbols, the gate's disagreement in steps."""

    plan: str
    symbols: int
    disagreement: float | None


@dataclass(frozen=True)
class BuildReport:
    """What was built. Sizes in bytes, digests in hex.

    The count is the paper's, of learnable parameters, over the tensors that change.
    """

    path: Path
    size: int
    container_bytes: int
    sha256: str
    base_digest: str | None
    result_digest: str
    learnable_count: int
    tensors: dict[str, TensorReport]
    coder: str
    golden: dict[str, object] | None = None


def header(method: methods.Method, options: Options, model: str) -> PackageHeader:
    """The header of a package that this Weft writes."""
    return PackageHeader(
        format=FORMAT,
        model=model,
        method=methods.wire_id(method),
        options=options.sent(),
        coder=coding.DEFAULT_CODER,
        tool=f"weft {version('weft')}",
    )


def assemble(
    head: PackageHeader,
    base: WeightsReader | None,
    target: Schema,
    sent: Mapping[str, Sent],
    output: Path,
    decoded: Path | None,
    golden: MakeGolden | None = None,
) -> BuildReport:
    """Write the package twice: to learn the digest of its result, and with it; then decode it.

    `golden` makes golden samples of the decoded weights, which then travel in the package.

    After an error `output` and `decoded` are as they were.
    """
    head = head.model_copy(update={"coder": _coder(target, sent)})
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        out = stack.enter_context(replacing(decoded or scratch / "weights"))
        made = stack.enter_context(replacing(output))
        _write(head, base, target, sent, draft := scratch / "draft", bytes(DIGEST_BYTES))
        with PackageReader(draft) as package, out.open("w+b") as file:
            digest = reconstitute(base, package, file)
        if golden:
            head = head.with_golden(golden(out))
        _write(head, base, target, sent, made, digest)
        with PackageReader(made) as package, out.open("w+b") as file:
            decode(base, package, file)
            size, container = package.size, package.container_bytes
            base_digest = package.base_digest
        with made.open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return BuildReport(
        path=output,
        size=size,
        container_bytes=container,
        sha256=sha256,
        base_digest=base_digest.hex() if base_digest else None,
        result_digest=digest.hex(),
        learnable_count=sum(s.count for s in sent.values()),
        tensors={name: _report(sent.get(name, UNCHANGED)) for name in target},
        coder=head.coder,
        golden=head.golden.fields() if head.golden else None,
    )


def decode_draft(
    head: PackageHeader, base: WeightsReader, sent: Mapping[str, Sent]
) -> dict[str, Array]:
    """What a device would make of the tensors in `sent`, by name, in storage form."""
    with tempfile.TemporaryDirectory() as scratch:
        draft, out = Path(scratch) / "draft", Path(scratch) / "weights"
        _write(head, base, base.schema, sent, draft, bytes(DIGEST_BYTES))
        with PackageReader(draft) as package, out.open("w+b") as file:
            reconstitute(base, package, file)
        with WeightsReader(out) as weights:
            return {name: weights.read(name) for name in sent}


def _write(
    head: PackageHeader,
    base: WeightsReader | None,
    target: Schema,
    sent: Mapping[str, Sent],
    output: Path,
    result_digest: bytes,
) -> None:
    with tempfile.TemporaryFile() as stream, output.open("wb") as file:
        writer = PackageWriter(
            head, base.schema if base else None, target, base.digest() if base else None, stream
        )
        for name in target:
            part = sent.get(name, UNCHANGED)
            writer.add(part.plan, part.symbols)
            for chunk in part.chunks() if part.chunks else ():
                writer.add_bytes(coding.shuffle(chunk))
        writer.write(file, result_digest)


def _coder(target: Schema, sent: Mapping[str, Sent]) -> str:
    """The coder that makes the smallest package; any one where there are no symbols."""
    symbols = [array for name in target for array in sent.get(name, UNCHANGED).symbols]
    return coding.smallest(symbols) if symbols else coding.DEFAULT_CODER


def _report(sent: Sent) -> TensorReport:
    symbols = sum(s.size for s in sent.symbols)
    return TensorReport(sent.plan.plan.name.lower(), symbols, sent.disagreement)
