"""The contract, for what the agent is given and for what programs are built of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.config import ModelConfig
from edge_agent.runtimes import Runtime, open_runtime
from edge_agent.runtimes.serving import serve
from edge_agent.runtimes.torch_live import LiveModel
from tests.runtimes.contract import Place, RuntimeTests, digest_of
from tests.runtimes.networks import Classifier, held_by, seeded


@pytest.fixture
def place(place: Place) -> Place:
    for slot, seed in (("a", 1), ("b", 2)):
        place.put(slot, seeded(Classifier(), seed))
    place.use("a")
    place.note("idle")
    return place


class TestFile(RuntimeTests):
    knows_digest = False

    @pytest.fixture
    def runtime(self, place: Place) -> Runtime:
        return open_runtime("digits", ModelConfig(), lambda: None)

    def uses(self, place: Place) -> str:
        return digest_of(place.directory / "current")


class LiveTests(RuntimeTests):
    @pytest.fixture
    def live(self, place: Place) -> Iterator[LiveModel]:
        self.model = LiveModel(Classifier().eval(), place.directory)
        yield self.model
        self.model.close()

    @pytest.fixture
    def runtime(self, live: LiveModel) -> Runtime:
        return live

    def uses(self, place: Place) -> str:
        with self.model.lease(timeout=20) as model:
            return held_by(model)


class TestTorchLive(LiveTests):
    pass


class TestTorchLiveWithACheck(LiveTests):
    @pytest.fixture
    def live(self, place: Place) -> Iterator[LiveModel]:
        self.model = LiveModel(Classifier().eval(), place.directory, check=lambda model: True)
        yield self.model
        self.model.close()

    def test_an_update_that_is_confirmed(self, place: Place, runtime: Runtime) -> None:
        super().test_an_update_that_is_confirmed(place, runtime)
        assert runtime.verify(place.held["b"], None).health == "passed"


class TestProgramWithTorchLive(LiveTests):
    @pytest.fixture
    def runtime(self, live: LiveModel, tmp_path: Path) -> Iterator[Runtime]:
        socket = tmp_path / "weft.sock"
        settings = {"kind": "program", "socket": str(socket), "timeout_seconds": 20}
        config = ModelConfig.model_validate({"runtime": settings})
        with serve({"digits": live}, socket):
            yield open_runtime("digits", config, lambda: None)
