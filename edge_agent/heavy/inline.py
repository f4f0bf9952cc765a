"""The tasks, done here and now. Modules are imported by the tasks that need them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.heavy import About, Inspection
from shared.errors import BadResult, BadWeights, WeftError

if TYPE_CHECKING:
    from edge_agent.trust import Admitted, Promise
    from edge_agent.trust.released import Released
    from edge_agent.undo import Side
    from shared.golden import Golden


class Inline:
    """See `Heavy`."""

    def begin(self) -> None:
        """There is nothing beside this process."""

    def end(self) -> None:
        """Nothing is ever begun."""

    def about(self) -> About:
        """See `Heavy`."""
        from shared import coding, methods, package
        from shared.tensors import FLOATS

        return About(
            formats=list(package.FORMATS),
            methods={method.id: method.version for method in methods.METHODS.values()},
            coders=sorted(coding.CODERS),
            dtypes=sorted(FLOATS),
            fault=_fault(),
        )

    def digest(self, path: Path) -> str | None:
        """See `Heavy`."""
        from shared.weights import WeightsReader

        try:
            with WeightsReader(path) as reader:
                return reader.digest().hex()
        except (BadWeights, OSError):
            return None

    def inspect(self, packages: Sequence[tuple[Path, Promise]], base: Path | None) -> Inspection:
        """See `Heavy`."""
        from edge_agent.reconstitute import result_sizes

        golden: list[Golden | None] = [None]
        sizes = result_sizes(_noting(_admitted(packages), golden), base)
        return Inspection(sizes, golden[-1])

    def apply(self, package: Path, promise: Promise, base: Path | None, output: Path) -> str:
        """See `Heavy`."""
        from edge_agent import trust
        from edge_agent.reconstitute import reconstitute

        with trust.admit(package, promise) as admitted:
            return reconstitute(admitted, base, output)

    def write_undo(self, package: Path, promise: Promise, base: Path, undo: Path) -> str:
        """See `Heavy`."""
        from edge_agent import trust
        from edge_agent.reconstitute import write_undo

        with trust.admit(package, promise) as admitted:
            return write_undo(admitted, base, undo)

    def verify_metadata(
        self, state_dir: Path, model: str, answer: bytes | None, pin: str | None, now: float
    ) -> Released:
        """See `Heavy`."""
        from edge_agent.trust.store import Store
        from edge_agent.trust.verify import verify

        return verify(Store.of(state_dir, model), model, answer, pin, now)

    def toggle(self, weights: Path, undo: Path, to: Side) -> None:
        """See `Heavy`."""
        from edge_agent.undo import toggle

        toggle(weights, undo, to)


def _admitted(packages: Sequence[tuple[Path, Promise]]) -> Iterator[Admitted]:
    """Each package in turn, open while it is looked at."""
    from edge_agent import trust

    for path, promise in packages:
        with contextlib.ExitStack() as stack:
            yield stack.enter_context(trust.admit(path, promise))


def _noting(admitted: Iterator[Admitted], golden: list[Golden | None]) -> Iterator[Admitted]:
    """The same packages; their golden samples are added to `golden` on the way."""
    for one in admitted:
        golden.append(one.package.header.golden)
        yield one


def _fault() -> WeftError | None:
    """What is wrong with this machine's arithmetic."""
    from shared.decode import known_answer

    try:
        known_answer()
    except BadResult as error:
        return error
    return None
