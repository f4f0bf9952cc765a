"""Base + package -> new weights in a file, durably, or no file at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from edge_agent import files
from edge_agent.errors import WrongWeights
from edge_agent.trust import Admitted
from shared.decode import decode
from shared.errors import BadResult
from shared.tensors import Schema
from shared.weights import WeightsReader


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
