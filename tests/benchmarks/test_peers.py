"""Peers: what is chosen of a search, what they are given, what they are compared by."""

from pathlib import Path

import numpy as np
import torch

from benchmarks.peers import folding, lossless, nncodec, report
from benchmarks.peers.nncodec import Coded, Point
from server.refine.job import Job
from server.refine.spec import JobSpec
from server.refine.weights import save_state, state_of
from server.zoo import get


def test_only_points_that_no_smaller_one_beats_are_measured() -> None:
    found = [
        Coded(Point(0.0, -20, 0.0, -26), 3000, 0.78),
        Coded(Point(0.0, -16, 0.0, -26), 2000, 0.79),
        Coded(Point(0.1, -16, 1.0, -26), 1000, 0.75),
        Coded(Point(0.1, -16, 1.0, -22), 1000, 0.76),
        Coded(Point(0.3, -12, 1.0, -22), 1500, 0.76),
    ]
    best = [found[3], found[1]]
    assert nncodec.envelope(found, least=0.75) == best
    assert nncodec.envelope(found, least=0.77) == best[1:]


def _job(folder: Path) -> Job:
    """Of VGG-small as initialised, with 200 images of noise."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (200, 16, 16, 3), np.uint8)
    np.savez(folder / "data.npz", images=images, labels=np.arange(200) % 10)
    torch.manual_seed(0)
    save_state(folder / "base", state_of(get("vgg_small").build({})))
    spec = {"architecture": "vgg_small", "base": folder / "base", "method": "full"}
    data = {"dataset": str(folder / "data.npz"), "recipe": {"held_out": 0.0, "threads": 1}}
    return Job(JobSpec.model_validate(spec | data))


def test_what_a_peer_is_given_needs_no_statistics_and_no_absorbed_biases(tmp_path: Path) -> None:
    job = _job(tmp_path)
    draw = torch.Generator().manual_seed(1)
    new = {
        n: t + 0.1 * torch.randn(t.shape, generator=draw) if t.dim() == 4 else t
        for n, t in job.base.items()
    }
    settled = folding.Folding(job)(new)
    moved = folding.change(settled, job.base)
    assert {n.rpartition(".")[2] for n in moved} == {"weight", "bias"}
    convolutions = {n.removesuffix("weight") for n, t in new.items() if t.dim() == 4}
    assert not {f"{n}bias" for n in convolutions} & moved.keys()

    images = job.data.images[:8].permute(0, 3, 1, 2).float() / 127.5 - 1
    module = job.target().float()
    module.load_state_dict(settled)
    folded = module.eval()(images)
    module.load_state_dict(new)
    folding.batchnorm.reestimate(module, job.data)
    torch.testing.assert_close(folded, module.eval()(images), rtol=1e-3, atol=1e-4)

    for name, tensor in folding.changed(job.base, moved).items():
        torch.testing.assert_close(tensor, settled[name])


def test_our_patch_of_one_tensor_takes_about_its_bytes(tmp_path: Path) -> None:
    base = {"a": torch.zeros(1000), "b": torch.linspace(-1, 1, 100_000)}
    save_state(tmp_path / "base", base)
    save_state(tmp_path / "new", base | {"a": torch.randn(1000)})
    assert 3000 < lossless.xor(tmp_path / "base", tmp_path / "new", tmp_path) < 4500


def _rows(method: str, sizes: list[int], lifts: list[float], model: int) -> report.Rows:
    return [
        {
            "family": f"{method}-{size}",
            "model": model,
            "seed": 0,
            "bytes": size,
            "before": 0.75,
            "after": 0.75 + gained / 100,
        }
        for size, gained in zip(sizes, lifts, strict=True)
    ]


def test_the_page_says_where_nothing_was_measured() -> None:
    assert "make bench-peers" in report.page([], [])


def test_the_page_compares_each_of_ours() -> None:
    run = {"peers": {"nncodec": "2", "bsdiff4": "1", "peft": "0"}, "setting": "vgg_small"}
    run |= {"recipe": {"epochs": 10}, "method": "nncodec", "seconds": 1.0}
    theirs = [row | run for row in _rows("nncodec", [4000, 16000], [0.0, 2.0], 0)]
    ours = _rows("sparse", [500, 2000], [0.0, 2.0], 0)
    taught = [
        row | {"family": f"{row['family']}-taught"}
        for row in _rows("sparse", [400, 1600], [0.0, 2.0], 0)
    ]
    told = report.page(theirs, ours + taught)
    assert "| sparse | 1,000 | 1/8.0 |" in told
    assert "| sparse taught | 800 | 1/10.0 |" in told
    assert "in common" in report.page(theirs, [])
