"""Base + package -> new weights in a file, or the way to them in place; durably, or no file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from edge_agent import files
from edge_agent.errors import AgentError, WrongWeights
from edge_agent.trust import Admitted
from edge_agent.undo import WeightsFile, Writer, make_scratch
from shared.decode import Decoding, decode
from shared.errors import BadResult
from shared.package import PackageReader
from shared.tensors import CHUNK_ELEMENTS, STORAGE, Array, Schema, WeightsDigest
from shared.weights import WeightsReader, tensor_digest


def reconstitute(admitted: Admitted, base: Path | None, output: Path) -> str:
    """Decode into `output` and return the weights digest, which is the package's result digest.

    Raises BadWeights, BadPackage, NoSpace; WrongWeights where the result is another one. After any
    of them `output` is as it was.
    """
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(WeightsReader(base)) if base else None
        file = stack.enter_context(files.replacing(output))
        try:
            return decode(reader, admitted.package, file).hex()
        except BadResult as error:
            if error.code != "result.mismatch":
                raise
            file.flush()
            with WeightsReader(Path(str(file.name))) as wrong:
                digests = {name: d.hex() for name, d in wrong.tensor_digests().items()}
            raise WrongWeights(error.message, digests) from error


def write_undo(admitted: Admitted, weights: Path, undo: Path) -> str:
    """Write what turns `weights` into the package's result in place; returns the result's digest.

    Nothing of `weights` is touched. Raises as `reconstitute`; AgentError `needs_ab` where the
    result has another schema.
    """
    package = admitted.package
    with WeightsReader(weights) as reader, weights.open("rb") as file:
        decoding = Decoding(reader, package)
        if decoding.target != reader.schema:
            raise AgentError("needs_ab", "the update changes names, dtypes or shapes of tensors")
        known = WeightsFile.of(file, reader.data_start)
        with files.replacing(undo) as output:
            writer = Writer(output, known)
            found = _note_changes(decoding, reader, writer)
            if found != package.result_digest:
                raise _wrong(found, reader, package)
            writer.close()
            make_scratch(undo, writer.changed)
    return found.hex()


def _note_changes(decoding: Decoding, old: WeightsReader, writer: Writer) -> bytes:
    """Tell the writer of each piece that changes; returns the digest of the result."""
    digest = WeightsDigest()
    for spec, chunks in decoding.tensors():
        digest.start(spec)
        itemsize, done = STORAGE[spec.dtype].itemsize, 0
        for chunk in chunks:
            digest.update(chunk)
            for piece in _pieces(chunk):
                there = old.read(spec.name, done, done + piece.size).reshape(-1)
                place = old.place(spec.name) + done * itemsize
                writer.add(place, itemsize, there.tobytes(), piece.tobytes())
                done += piece.size
    return digest.digest()


def _pieces(chunk: Array) -> Iterable[Array]:
    """A method may give whole rows, of any length."""
    flat = chunk.reshape(-1)
    return (flat[at : at + CHUNK_ELEMENTS] for at in range(0, flat.size, CHUNK_ELEMENTS))


def _wrong(found: bytes, base: WeightsReader, package: PackageReader) -> WrongWeights:
    """What to report; the digests of the tensors take a second decoding, which is rare."""
    promised = package.result_digest.hex()
    tensors = Decoding(base, package).tensors()
    digests = {spec.name: tensor_digest(chunks).hex() for spec, chunks in tensors}
    return WrongWeights(f"decoded {found.hex()}, the package promises {promised}", digests)


def result_sizes(packages: Iterable[Admitted], base: Path | None) -> list[int]:
    """Bytes of the weights that each package gives, one applied after the other.

    Known before anything is made. Raises BadWeights, BadPackage.
    """
    schema: Schema | None = None
    if base is not None:
        with WeightsReader(base) as reader:
            schema = reader.schema
    sizes = []
    for admitted in packages:
        schema = admitted.package.target_schema(schema)
        sizes.append(sum(spec.nbytes for spec in schema.values()))
    return sizes
