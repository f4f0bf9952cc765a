from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.lift import protocol as lift_protocol
from benchmarks.lift.candidates import candidates
from benchmarks.lift.settings import SETTINGS
from benchmarks.paper import filter_pruning, plots, runs, tables
from benchmarks.paper.experiments import EXPERIMENTS, Cell, matched, untuned
from benchmarks.paper.filter_pruning import links, pruned, remaining
from benchmarks.paper.lines import lines, made
from benchmarks.paper.published import SAYS, TABLE1
from benchmarks.paper.sizes import at_least, count, nearest, parameters
from server.publish import spec
from server.refine.initial import train_initial
from server.refine.weights import load_state, save_state, state_of
from server.registry.opening import open_dataset
from server.zoo.resnet import BasicBlock, Bottleneck, ResNet
from server.zoo.vgg import Vgg, vgg_small


def _row(cell: Cell, points: float, **changes: Any) -> dict[str, Any]:
    own, one = SETTINGS[cell.setting], candidates(cell.family)[0]
    stage = "test" if cell.epochs is None else f"epochs{cell.epochs}"
    recipe = {"epochs": cell.epochs or own.epochs, "learning_rate": cell.rate}
    return {
        "stage": stage,
        "setting": cell.setting,
        "family": cell.family,
        "candidate": one.name,
        "method": one.method,
        "model": cell.model,
        "seed": cell.seed,
        "recipe": recipe,
        "bytes": 4000,
        "before": 0.75,
        "after": 0.75 + points / 100,
        "seconds": 36.0,
        **changes,
    }


# Sizes


@pytest.mark.parametrize(
    ("setting", "whole", "ka"),
    [
        ("vgg_tiny", 26_554, 2_706),
        ("vgg_small", 136_266, 7_413),
        ("vgg_medium", 539_786, 14_672),
        ("mobilenet_v2", 2_296_922, 122_632),
        ("resnet18", 11_173_962, 122_973),
        ("resnet50", 23_520_842, 310_656),
    ],
)
def test_counts_are_the_papers(setting: str, whole: int, ka: int) -> None:
    assert parameters(setting) == count(setting, "dense") == whole
    assert count(setting, "ka-3") == ka


@pytest.mark.parametrize("setting", EXPERIMENTS["table1"].settings)
def test_rm_and_lru_are_a_little_larger_than_ka_as_in_table_1(setting: str) -> None:
    ka, rm, lru, *controls = matched(setting, 3)
    assert ka == "ka-3"
    assert controls == ["control", "dense"]
    assert count(setting, ka) <= count(setting, rm) < 1.03 * count(setting, ka)
    assert count(setting, ka) <= count(setting, lru) < 1.12 * count(setting, ka)


def test_the_nearest_size_is_found_on_either_side_and_the_smallest_that_suffices() -> None:
    assert at_least("vgg_tiny", "lru", 1104) == "lru-7"
    assert at_least("vgg_tiny", "lru", 1105) == "lru-8"
    assert nearest("vgg_tiny", "lru", 1105) == "lru-7"
    assert nearest("vgg_tiny", "ka", 1) == "ka-1"
    assert at_least("vgg_tiny", "fp", 26_000) == "fp-5"


def test_ranks_beyond_the_matrices_are_not_asked_for() -> None:
    family = nearest("vgg_tiny", "ml", 26_554)
    smaller = f"ml-{int(family.removeprefix('ml-')) - 1}"
    assert count("vgg_tiny", family) > count("vgg_tiny", smaller)


# Experiments


def test_every_cell_is_a_run_that_can_be_asked_for_and_there_is_but_one_of_it() -> None:
    for name, experiment in EXPERIMENTS.items():
        cells = list(experiment.cells())
        assert len(set(cells)) == len(cells)
        for setting in experiment.settings:
            for family in experiment.families(setting):
                assert candidates(family)
        assert name in SAYS


def test_curves_have_points_near_their_shares_and_no_others() -> None:
    families = EXPERIMENTS["fig4a"].families("resnet18")
    assert {family.split("-")[0] for family in families} == {
        *("ka", "ml", "lra", "rm", "lru", "fp", "control", "dense")
    }
    shares = [count("resnet18", f) / parameters("resnet18") for f in families if "-" in f]
    assert min(shares) > 0.003
    assert max(shares) < 0.21


def test_a_plan_can_be_cut_down() -> None:
    fewer = EXPERIMENTS["fig6"].limited(1, 1, 2, ["vgg_tiny", "mnist"])
    assert {(cell.setting, cell.epochs) for cell in fewer.cells()} == {("vgg_tiny", 2)}
    assert len(list(fewer.cells())) == len(fewer.families("vgg_tiny"))


# What is left


def test_a_run_of_another_length_or_rate_is_another_run() -> None:
    cell = Cell("vgg_small", "ka-3", 0, 0, epochs=5, rate=0.01)
    row = _row(cell, 1.0)
    assert runs.is_of(row, cell)
    assert not runs.is_of(row, Cell("vgg_small", "ka-3", 0, 0))
    assert not runs.is_of(row, Cell("vgg_small", "ka-3", 0, 0, epochs=5, rate=0.03))
    assert not runs.is_of(row, Cell("vgg_small", "ka-3", 1, 0, epochs=5, rate=0.01))
    full = SETTINGS["vgg_small"].epochs
    usual = _row(Cell("vgg_small", "ka-3", 0, 0, rate=0.01), 1.0)
    assert runs.is_of(usual, Cell("vgg_small", "ka-3", 0, 0, epochs=full, rate=0.01))
    assert not runs.is_of(usual, cell)


def test_runs_that_show_where_ka_saturates_are_in_no_other_table() -> None:
    saturation = EXPERIMENTS["saturation"]
    rows = [_row(cell, 1.0) for cell in saturation.cells()]
    usual = _row(Cell("vgg_small", "ka-3", 0, 0, rate=0.09), 2.0)
    assert lines(EXPERIMENTS["table1"], rows) == []
    assert lines(EXPERIMENTS["table1"], [*rows, usual])[0].rows == (usual,)
    assert made(saturation, [*rows, usual]) == [*rows, usual]


def test_what_is_left_is_runs_their_tuning_and_initial_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lift_protocol, "WORK", tmp_path)
    cells = [Cell("vgg_tiny_10", family, 0, 0) for family in ("ka-1", "control")]
    left = list(runs.left(cells, []))
    assert [one.method for one in left] == ["ka", "initial", "ka", "ka", "ka", "direct"]
    assert {one.setting for one in left[2:5]} == {"vgg_tiny"}
    tuned = [_row(Cell("vgg_tiny", "ka-3", 0, 0), 1, stage="tune", candidate=c.name)
             for c in candidates("ka-3")]  # fmt: skip
    assert [one.method for one in runs.left(cells, tuned)] == ["ka", "initial", "direct"]
    assert [one.method for one in runs.left(cells, [_row(cells[0], 1.0)])] == ["direct", "initial"]


def test_hours_come_from_the_runs_there_are() -> None:
    row = _row(Cell("vgg_tiny", "ka-1", 0, 0), 1.0)  # 36 s
    pace = runs.Pace([row, {**row, "device": "another", "seconds": 1.0}])
    images = SETTINGS["vgg_tiny"].epochs * 50_000
    assert pace.hours([runs.Training("vgg_tiny", "ka", images)] * 2) == pytest.approx(0.02)
    assert pace.seconds(runs.Training("vgg_tiny", "rm", images)) == pytest.approx(36)
    slower = runs.multiply_adds("vgg_small") / runs.multiply_adds("vgg_tiny")
    assert pace.seconds(runs.Training("vgg_small", "ka", images)) == pytest.approx(36 * slower)
    assert runs.Pace([]).hours([runs.Training("vgg_tiny", "ka", 1)]) is None


def test_multiply_adds_are_those_of_convolutions_and_linear_layers() -> None:
    convolutions = 32**2 * 16 * 27 + 16**2 * 16 * 144 + 8**2 * 32 * 144 + 4**2 * 64 * 288
    assert runs.multiply_adds("vgg_tiny") == convolutions + 640


# Filter pruning


def _networks() -> list[nn.Module]:
    torch.manual_seed(0)
    return [
        Vgg((8, 6, 8), 1, 3, batch_norm=True),
        Vgg((8, 6), 1, 3, batch_norm=False),
        ResNet(BasicBlock, (8, 12), (1, 2), 1, 3),
        ResNet(Bottleneck, (6, 8), (1, 1), 1, 3),
    ]


@pytest.mark.parametrize("module", _networks(), ids=["norms", "plain", "basic", "bottleneck"])
def test_a_pruned_network_is_the_one_that_ignores_its_weakest_filters(module: nn.Module) -> None:
    for tensor in module.state_dict().values():  # no BatchNorm is neutral
        if tensor.is_floating_point() and tensor.dim() == 1:
            tensor.add_(torch.rand(tensor.shape))
    module.eval()
    images = torch.randn(4, 1, 16, 16)
    smaller = pruned(module, 50)
    with torch.no_grad():
        norms = [conv.weight.abs().sum((1, 2, 3)) for conv, _, _ in links(module)]
        for own, (_, _, reader) in zip(norms, links(module), strict=True):
            reader.weight[:, own.argsort()[: len(own) // 2]] = 0
        torch.testing.assert_close(smaller(images), module(images))
    assert remaining(module, 50) == sum(p.numel() for p in smaller.parameters())
    assert remaining(module, 0) == sum(p.numel() for p in module.parameters())


def test_what_remains_is_counted_whole() -> None:
    # Widths 4, 3, 4, each with bias and BatchNorm; and 4 * 3 + 3 of the linear layer.
    assert remaining(_networks()[0], 50) == 40 + 8 + 111 + 6 + (4 * 27 + 4 + 8) + 15
    assert count("vgg_tiny", "fp-50") == 8 * 28 + 8 * 73 + 16 * 73 + 32 * 145 + 330
    with pytest.raises(ValueError, match="no plan"):
        list(links(nn.Linear(2, 2)))


def _world(folder: Path) -> spec.Task:
    """An untrained VGG, and images of noise whose label is which half is brighter."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 96)
    images = rng.integers(0, 150, (96, 16, 16), dtype=np.uint8)
    images[labels == 1, :8] += 80
    data = str(folder / "data.npz")
    np.savez(data, images=images, labels=labels, classes=["0", "1"])
    arguments = {"in_channels": 1, "classes": 2}
    torch.manual_seed(1)
    save_state(folder / "base.safetensors", state_of(vgg_small(**arguments)))
    job = {
        "architecture": "vgg_small",
        "arguments": arguments,
        "base": folder / "base.safetensors",
        "dataset": data,
        "evaluation_dataset": data,
        "method": "fp",
        "options": {"percent": 50},
        "recipe": {"epochs": 4, "batch_size": 16, "held_out": 0.0, "threads": 1},
    }
    return spec.Task.model_validate({"model": "vgg_small", "job": job})


class Interrupted(Exception):
    pass


def test_a_retraining_that_was_interrupted_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    def until_the_third(line: dict[str, Any]) -> None:
        if line["epoch"] == 3:
            raise Interrupted

    task, told = _world(tmp_path), []
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    expected = filter_pruning.refine(task, whole, lambda _line: None)
    with pytest.raises(Interrupted):
        filter_pruning.refine(task, cut, until_the_third)
    found = filter_pruning.refine(task, cut, told.append)
    assert [line["epoch"] for line in told] == [3, 4]
    assert {**found, "seconds": 0} == {**expected, "seconds": 0}
    assert found["after"] > 0.9 > found["before"]
    state = load_state(whole / filter_pruning.PRUNED)
    learnt = [t for name, t in state.items() if "running" not in name and "num_b" not in name]
    assert sum(t.numel() for t in learnt) == found["learnable_count"]
    assert found["package_bytes"] == (whole / filter_pruning.PRUNED).stat().st_size


def test_an_initial_model_that_was_interrupted_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    def until_the_third(line: dict[str, Any]) -> None:
        if line["epoch"] == 3:
            raise Interrupted

    job, told = _world(tmp_path).job, []
    args = job.architecture, job.arguments, open_dataset(job.dataset), job.recipe
    expected = train_initial(*args)
    with pytest.raises(Interrupted):
        train_initial(*args, until_the_third, tmp_path)
    found = train_initial(*args, told.append, tmp_path)
    assert [line["epoch"] for line in told] == [3, 4]
    assert all(torch.equal(found[name], expected[name]) for name in expected)


# The page


def test_a_line_of_fewer_or_shorter_runs_is_marked_as_reduced() -> None:
    fig5 = EXPERIMENTS["fig5"]
    full = [cell for cell in fig5.cells() if cell.family == "ka-1"]
    tuning = _row(full[0], 0.0, stage="tune")
    (line,) = lines(fig5, [tuning, *(_row(cell, 1.0) for cell in full)])
    assert line.runs == "6"
    (line,) = lines(fig5, [tuning, _row(full[0], 1.0)])
    assert line.runs == "1 of 6: reduced"
    short = untuned(Cell("vgg_tiny", "ka-1", 0, 0, epochs=2))
    (line,) = lines(fig5, [_row(short, 1.0)])
    assert line.runs == "1 of 6, with 2 epochs of 10, untuned: reduced"
    (line,) = lines(fig5, [_row(short, 1.0), _row(full[0], 3.0)])
    assert line.figure.lift == pytest.approx(3.0)


def test_the_page_holds_ours_against_the_papers_and_says_what_was_not_run() -> None:
    cells = [Cell("vgg_small", "ka-3", model, 0) for model in range(3)]
    rows = [_row(cell, 2.0 + cell.model) for cell in cells]
    for row in rows:
        row["recipe"]["learning_rate"] = 0.01
    page = tables.page(rows)
    assert (
        "| 7,413 (7,413) | 75.00 (76.40) | +3.00 ± 2.48 (+2.28) | 0.01 | 3 of 6, untuned: reduced |"
        in page
    )
    assert "No run yet of vgg_medium, mobilenet_v2, resnet18, resnet50" in page
    assert '`make bench-paper ARGS="--only fig4b"`: 162 runs in all, about ' in page
    assert page.count("No run yet.\n") == len(EXPERIMENTS) - 1


def test_ours_is_held_against_ka_at_each_rate_of_which_it_saturates() -> None:
    tuned, other = EXPERIMENTS["saturation"].rates
    pairs = [(model, seed) for model in range(2) for seed in range(2)]
    rows = [
        row
        for at in pairs
        for row in (
            _row(Cell("vgg_small", "ka-3", *at, rate=tuned), 1.5),
            _row(Cell("vgg_small", "ka-3", *at, epochs=10, rate=other), 2.0),
            _row(Cell("vgg_small", "ka-3", *at, epochs=20, rate=other), 3.0),
            _row(Cell("vgg_small", "sparse-600", *at), 1.5, bytes=400),
            _row(Cell("vgg_small", "sparse-1200", *at), 2.0, bytes=800),
        )
    ]
    page = tables.page(rows)
    assert "| 10 | +1.50 | +2.00 |" in page
    assert (
        f"- Rate {tuned:g}: +1.50 ± 0.00, of 4 runs. `sparse` has the lift of `ka-3` at 400 "
        in page
    )
    assert (
        f"- Rate {other:g}: +2.00 ± 0.00, of 4 runs. `sparse` has the lift of `ka-3` at 800 "
        in page
    )
    assert "**1/5.0**" in page


def test_table_1_of_the_paper_is_all_there() -> None:
    assert {setting for setting, _ in TABLE1} == set(EXPERIMENTS["table1"].settings)
    assert all((s, m) in TABLE1 for s, _ in TABLE1 for m in ("ka", "rm", "lru"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_each_experiment_with_runs_has_a_plot_and_others_none(name: str, tmp_path: Path) -> None:
    experiment = EXPERIMENTS[name].limited(2, 1, None, None)
    rows = [_row(cell, 1.0 + cell.model) for cell in experiment.cells()]
    plots.plot(experiment, [], tmp_path)
    assert list(tmp_path.iterdir()) == []
    plots.plot(experiment, json.loads(json.dumps(rows)), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"paper-{name}.png"]
