from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from server import zoo
from server.errors import BadDataset, BadRefinement
from server.packaging.encode import code_matrices, finish
from server.refine.batches import Batches
from server.refine.effective import dense_clone
from server.refine.job import Job, train
from server.refine.loop import fit
from server.refine.outcome import Refined
from server.refine.recipe import Recipe
from server.refine.start import start_from
from server.refine.weights import load_state, save_state, state_of
from server.registry.opening import ImageDataset, fingerprint
from shared import methods
from shared.weights import WeightsReader

OPTIONS: dict[str, dict[str, Any]] = {
    "ka": {"rank": 1},
    "ml": {"rank": 9},
    "ml_delta": {"rank": 2},
    "lra": {"rank": 9},
    "lru": {"rank": 2},
    "lora": {"rank": 1},
    "rm": {"proportion": 0.1},
    "sparse": {},
    "direct": {},
}


class Stop(Exception):
    """Stands for whatever ends a training in the middle."""


def _ignore(line: dict[str, Any]) -> None:
    return


def _same(a: Refined, b: Refined) -> bool:
    return a.state.keys() == b.state.keys() and all(
        torch.equal(a.state[n], b.state[n]) for n in a.state
    )


@pytest.mark.parametrize("method", OPTIONS)
def test_refined_then_coded_then_settled_weights_do_their_work(
    world: Any, tmp_path: Path, method: str
) -> None:
    """The whole way that the pipeline goes, measured on what a device would hold."""
    spec = world.spec(method, options=OPTIONS[method] | {"bits": 8})
    job = Job(spec)
    refined = job.train(_ignore)
    chosen = methods.get(method)
    with WeightsReader(spec.base) as base:
        coded = code_matrices(base, refined.parameters, chosen, job.plan.options)
        settled = job.settle(refined, coded.decoded())
        report = finish(coded, settled.others, tmp_path / "p", "m", refined.schema, tmp_path / "w")
    delivered, trained = job.evaluate(tmp_path / "w"), job.evaluate_state(refined.state)
    assert delivered.accuracy >= trained.accuracy - 0.1
    assert delivered.accuracy > 0.6
    assert report.learnable_count <= refined.learnable_count
    sent = {name for name, part in report.tensors.items() if part.plan != "unchanged"}
    assert not any("running" in name or "num_batches" in name for name in sent)
    assert not {f"features.{n}.bias" for n in (0, 4, 8, 12, 15)} & sent  # folded away


def test_the_count_is_the_papers(world: Any) -> None:
    refined = train(world.spec(), None, _ignore)
    schema = zoo.get("vgg_small").schema(world.spec().arguments)
    ka = methods.get("ka")
    options = methods.options(ka, {"rank": 1})
    expected = 0
    for name in zoo.get("vgg_small").learnable(world.spec().arguments):
        spec = schema[name]
        served = len(spec.shape) > 1 and name in refined.parameters
        expected += ka.count(*spec.matrix, options) if served else spec.size
    assert refined.learnable_count == expected


def test_refining_again_starts_where_the_device_is(world: Any, tmp_path: Path) -> None:
    """A folded version refined with and without its stored statistics keeps its accuracy."""
    job = Job(world.spec())
    refined = job.train(_ignore)
    settled = job.settle(refined, {})
    save_state(tmp_path / "v2", settled.applied(refined))
    settled.save_statistics(tmp_path / "v2.statistics")
    held = job.evaluate(tmp_path / "v2").accuracy
    gentle = Recipe(epochs=1, learning_rate=1e-6, held_out=0, batch_size=50, threads=1)
    for statistics in (tmp_path / "v2.statistics", None):
        again = Job(world.spec(base=tmp_path / "v2", statistics=statistics, recipe=gentle))
        assert again.measure.base().accuracy == held
        refined2 = again.train(_ignore)
        assert refined2.history[0]["loss"] == pytest.approx(refined.history[-1]["loss"], abs=0.3)
        settled2 = again.settle(refined2, {})
        after = again.evaluate_state(settled2.applied(refined2))
        assert abs(after.accuracy - held) <= 0.05


def test_the_same_seed_gives_the_same_weights(world: Any) -> None:
    a, b = train(world.spec(), None, _ignore), train(world.spec(), None, _ignore)
    assert _same(a, b)
    other = Recipe(epochs=2, batch_size=32, seed=1, threads=1)
    assert not _same(a, train(world.spec(recipe=other), None, _ignore))


@pytest.mark.parametrize(
    ("optimizer", "method", "options"),
    [("adam", "ka", {"rank": 1}), ("sgd", "ka", {"rank": 1}), ("adam", "sparse", {"bytes": 50})],
)
def test_an_interrupted_training_goes_on_to_the_same_weights(
    world: Any, tmp_path: Path, optimizer: str, method: str, options: dict[str, Any]
) -> None:
    recipe = Recipe(epochs=3, batch_size=32, crop=1, optimizer=optimizer, threads=1)
    spec = world.spec(method, options=options, recipe=recipe)

    def stop_in_second_epoch(line: dict[str, Any]) -> None:
        if line["epoch"] == 2:
            raise Stop

    with pytest.raises(Stop):
        train(spec, tmp_path, stop_in_second_epoch)
    resumed: list[dict[str, Any]] = []
    refined = train(spec, tmp_path, resumed.append)
    assert resumed[0]["epoch"] == 2
    assert _same(refined, train(spec, None, _ignore))
    assert len(refined.history) == 3
    done: list[dict[str, Any]] = []
    assert _same(refined, train(spec, tmp_path, done.append))  # finished: nothing left to do
    assert not done


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_not_used(
    world: Any, tmp_path: Path
) -> None:
    train(world.spec(), tmp_path, _ignore)
    (path,) = tmp_path.iterdir()
    lines: list[dict[str, Any]] = []
    other = Recipe(epochs=1, batch_size=32, seed=9, threads=1)
    train(world.spec(recipe=other), tmp_path, lines.append)
    assert lines[0]["epoch"] == 1
    path.write_bytes(path.read_bytes()[:1000])
    lines.clear()
    train(world.spec(recipe=other), tmp_path, lines.append)
    assert lines[0]["epoch"] == 1


def test_progress_says_how_far_it_is(world: Any) -> None:
    lines: list[dict[str, Any]] = []
    train(world.spec(), None, lines.append)
    last = lines[-1]
    assert last["stage"] == "refine"
    assert (last["epoch"], last["epochs"]) == (2, 2)
    assert last["step"] == last["steps"]
    assert last["seconds_left"] == 0
    assert 0 <= last["accuracy"] <= 1


def test_another_head_learns_the_new_classes(
    world: Any,
    tmp_path: Path,
    images: Callable[..., ImageDataset],
    save: Callable[[Path, ImageDataset], str],
) -> None:
    more = save(tmp_path / "more.npz", images(300, classes=4, seed=5))
    target = {"in_channels": 1, "classes": 4}
    recipe = Recipe(epochs=4, batch_size=32, threads=1)
    spec = world.spec(dataset=more, evaluation_dataset=None, target_arguments=target, recipe=recipe)
    job = Job(spec)
    refined = job.train(_ignore)
    assert "classifier.weight" in refined.dense
    assert "classifier.weight" not in refined.parameters
    with WeightsReader(spec.base) as base:
        coded = code_matrices(base, refined.parameters, job.plan.method, job.plan.options)
        settled = job.settle(refined, coded.decoded())
        finish(coded, settled.others, tmp_path / "p", "m", refined.schema, tmp_path / "w")
    assert load_state(tmp_path / "w")["classifier.weight"].shape == (4, 128)
    assert job.evaluate(tmp_path / "w").per_class["3"] > 0.5
    assert job.measure.base().per_class["3"] == 0


def test_lossless_methods_take_the_whole_target(world: Any) -> None:
    job = Job(world.spec("xor"))
    refined = job.train(_ignore)
    assert not refined.parameters
    assert "features.0.weight" in refined.dense
    state = job.settle(refined, {}).applied(refined)
    base = load_state(world.base)
    assert state.keys() == base.keys()
    same = {n for n in state if torch.equal(state[n], base[n])}
    assert {n for n in base if "running" in n or "num_batches" in n} <= same
    trained, delivered = job.evaluate_state(refined.state), job.evaluate_state(state)
    assert delivered.accuracy >= trained.accuracy - 0.1


def test_the_control_leaves_every_matrix(world: Any) -> None:
    recipe = Recipe(epochs=1, batch_size=32, matrices=False, threads=1)
    job = Job(world.spec(recipe=recipe))
    refined = job.train(_ignore)
    assert not refined.parameters
    assert all(v.ndim == 1 for v in job.settle(refined, {}).others.values())


def test_a_low_precision_base_is_refined_on_its_own_grid(world: Any, tmp_path: Path) -> None:
    half = {n: t.bfloat16() if t.dim() > 1 else t for n, t in load_state(world.base).items()}
    save_state(tmp_path / "half", half)
    job = Job(world.spec(base=tmp_path / "half"))
    refined = job.train(_ignore)
    assert refined.state["features.0.weight"].dtype == torch.bfloat16
    assert refined.schema["features.0.weight"].dtype == "BF16"
    with WeightsReader(tmp_path / "half") as base:
        coded = code_matrices(base, refined.parameters, job.plan.method, job.plan.options)
        decoded = coded.decoded()
    assert decoded["features.0.weight"].dtype == np.uint16
    assert job.evaluate_state(job.settle(refined, decoded).applied(refined)).accuracy > 0.6


def test_data_that_do_not_fit_the_model(
    world: Any,
    tmp_path: Path,
    images: Callable[..., ImageDataset],
    save: Callable[[Path, ImageDataset], str],
) -> None:
    many = save(tmp_path / "many.npz", images(20, classes=4))
    with pytest.raises(BadDataset) as caught:
        Job(world.spec(dataset=many))
    assert caught.value.code == "dataset.bad_label"
    colour = np.zeros((4, 16, 16, 3), np.uint8)
    np.savez(tmp_path / "colour.npz", images=colour, labels=[0, 1, 2, 0])
    with pytest.raises(BadDataset) as caught:
        Job(world.spec(dataset=str(tmp_path / "colour.npz")))
    assert caught.value.code == "dataset.bad_image"
    with pytest.raises(BadDataset) as caught:
        Job(world.spec(evaluation_dataset=many)).measure  # noqa: B018 - a property that measures
    assert caught.value.code == "dataset.bad_label"


def test_a_training_that_diverges_says_so(images: Callable[..., ImageDataset]) -> None:
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 3))
    torch.nn.init.constant_(module[1].weight, 1e38)
    clone = dense_clone(start_from(state_of(module), module), 0.1, torch.device("cpu"))
    data, nothing = Batches.of(images(64), torch.device("cpu")).split(0, 0)
    with pytest.raises(BadRefinement) as caught:
        fit(clone, data, nothing, Recipe(), _ignore)
    assert caught.value.code == "refinement.bad_recipe"
    assert "learning rate" in caught.value.message


def test_data_that_changed_since_they_were_registered_are_refused(world: Any) -> None:
    """Lineage would be wrong: the version would not come from the data that its history names."""
    known = {world.spec("ka").dataset: fingerprint(world.spec("ka").dataset)}
    Job(world.spec("ka", fingerprints=known))
    with pytest.raises(BadDataset, match=r"dataset\.changed"):
        Job(world.spec("ka", fingerprints=dict.fromkeys(known, "0" * 64)))
