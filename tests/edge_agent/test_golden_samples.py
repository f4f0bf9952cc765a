"""The whole way of golden samples: into a package, through the agent, to the program that judges.

Real parts but for the server: the package is built by it, the agent is run, the program serves a
torch module over its socket.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edge_agent.runtimes.serving import serve
from edge_agent.runtimes.torch_live import LiveModel
from server.packaging.encode import BuildReport, build_package
from server.packaging.expected import Expected
from server.refine.weights import save_state, state_of
from shared import wire
from shared.weights import WeightsReader
from tests.edge_agent.conftest import MODEL
from tests.runtimes.networks import Classifier, held_by


class Shifted(Classifier):
    """A program that prepares its inputs in another way: the same tensors, other answers."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(0.5 - x)


def weights(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    path = folder / f"{seed}.safetensors"
    save_state(path, state_of(Classifier()))
    return path


class Site:
    """A device with version 1 and a program, and version 2 on offer with golden samples."""

    def __init__(self, bench: Any, plane: Any, folder: Path) -> None:
        self.bench, self.plane, self._folder = bench, plane, folder
        self._stack = ExitStack()
        old, new = weights(folder, 1), weights(folder, 2)
        place = folder / "update.weft"
        golden = Expected(Classifier, 24, (3, 2, 2))
        self.built = build_package(old, new, "direct", {}, place, MODEL, golden=golden)
        with WeightsReader(old) as reader:
            self.old = reader.digest().hex()
        socket = folder / "weft.sock"
        bench.settings["models"][MODEL] |= {
            "initial": str(old),
            "runtime": {"kind": "program", "socket": str(socket), "timeout_seconds": 20},
        }
        assert bench.round() == []  # takes in what it was delivered with
        self._offer(self.built)

    def _offer(self, built: BuildReport) -> None:
        offer = wire.PackageOffer(
            sha256=built.sha256,
            size=built.size,
            url=f"{wire.PACKAGES_PATH}/{built.sha256}",
            base_digest=built.base_digest,
            method="direct",
        )
        wanted = wire.DesiredModel(
            model=MODEL,
            version=2,
            weights_digest=built.result_digest,
            assignment=1,
            package=offer,
        )
        self.plane.generation += 1
        self.plane.models = {MODEL: wanted}
        self.plane.files[built.sha256] = built.path.read_bytes()

    def start(self, module: nn.Module) -> LiveModel:
        self.module = module.eval()
        live = LiveModel(self.module, self.bench.folder, golden=True)
        self._stack.enter_context(serve({MODEL: live}, self._folder / "weft.sock"))
        return live

    def end(self) -> None:
        self._stack.close()


@pytest.fixture(params=["ab", "inplace"])
def site(request: Any, bench: Any, plane: Any, tmp_path: Path) -> Iterator[Site]:
    bench.settings["models"][MODEL]["storage"] = request.param
    made = Site(bench, plane, tmp_path)
    yield made
    made.end()


def test_a_program_that_answers_as_expected_keeps_the_new_weights(site: Site) -> None:
    live = site.start(Classifier())
    assert site.bench.round() == []
    report = site.plane.reports[-1]
    assert (report.result, report.health) == ("committed", "passed")
    assert report.weights_digest == site.built.result_digest == held_by(site.module)
    with live.lease(timeout=0):
        pass


def test_a_program_that_computes_something_else_goes_back_exactly(site: Site) -> None:
    """The weights are right, to the digest; what is done with them is not."""
    live = site.start(Shifted())
    assert held_by(site.module) == site.old
    assert site.bench.round() == ["health.failed"]
    report = site.plane.reports[-1]
    assert (report.result, report.health) == ("failed_rolled_back", "failed")
    assert report.error is not None
    assert "of 24 golden samples agree" in report.error.message
    assert report.weights_digest == site.old == site.bench.in_use() == held_by(site.module)
    with live.lease(timeout=0):
        pass


def test_while_no_program_runs_the_update_waits(site: Site) -> None:
    site.bench.round()
    assert site.bench.in_use() == site.old
    site.start(Classifier())
    site.plane.generation += 1
    assert site.bench.round() == []
    assert site.plane.reports[-1].result == "committed"
