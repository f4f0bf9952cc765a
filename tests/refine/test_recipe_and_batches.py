from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from server.refine.batches import Batches, scaled
from server.refine.recipe import Recipe
from server.registry.opening import ImageDataset

CPU = torch.device("cpu")


def _numbered(count: int, size: int = 8) -> Batches:
    """Images whose pixels say their row, column and number."""
    pixels = torch.zeros(count, size, size, 3, dtype=torch.uint8)
    pixels[..., 0] = torch.arange(size)[:, None]
    pixels[..., 1] = torch.arange(size)
    pixels[..., 2] = torch.arange(count)[:, None, None]
    return Batches(pixels, torch.arange(count) % 3)


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
def test_rates_stay_between_zero_and_the_top(schedule: str) -> None:
    recipe = Recipe(schedule=schedule)
    rates = [recipe.share(step, 100) for step in range(100)]
    assert 0 < min(rates) <= max(rates) <= 1
    assert max(rates) > 0.99
    assert len(set(rates)) == 1 or rates[-1] < 0.01


def test_one_cycle_rises_then_falls() -> None:
    rates = [Recipe().share(step, 80) for step in range(80)]
    top = rates.index(max(rates))
    assert top == 20
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert Recipe().share(0, 1) > 0


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"learning_rate": -1}, {"optimiser": "adam"}])
def test_recipes_that_make_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Recipe.model_validate(wrong)


def test_bytes_become_numbers_from_minus_one_to_one() -> None:
    pixels = torch.tensor([0, 255, 51], dtype=torch.uint8).reshape(1, 1, 1, 3)
    assert scaled(pixels).flatten().tolist() == pytest.approx([-1, 1, -0.6])


def test_dataset_keeps_its_images(images: Callable[..., ImageDataset]) -> None:
    dataset = images(5)
    data = Batches.of(dataset, CPU)
    (x, y), *rest = data.plain(3)
    assert len(rest) == 1
    np.testing.assert_array_equal(y, dataset.labels[:3])
    np.testing.assert_allclose(x, dataset.images[:3] / 127.5 - 1, atol=1e-6)


def test_split_is_a_partition_drawn_by_the_seed() -> None:
    data = _numbered(50)
    kept, apart = data.split(0.2, seed=1)
    numbers = [p.images[:, 0, 0, 2].tolist() for p in (kept, apart)]
    assert len(numbers[1]) == 10
    assert sorted(numbers[0] + numbers[1]) == list(range(50))
    assert data.split(0.2, seed=1)[1].images[:, 0, 0, 2].tolist() == numbers[1]
    assert data.split(0.2, seed=2)[1].images[:, 0, 0, 2].tolist() != numbers[1]
    assert len(data.split(0, seed=1)[1]) == 0


def test_an_epoch_shows_every_image_once_and_depends_on_seed_and_number() -> None:
    data, recipe = _numbered(21), Recipe(batch_size=5, crop=1, flip=True)
    epochs = {
        key: [(x.clone(), y) for x, y in data.epoch(recipe.model_copy(update={"seed": seed}), n)]
        for key, seed, n in [("a", 0, 0), ("again", 0, 0), ("next", 0, 1), ("seed", 1, 0)]
    }
    assert len(epochs["a"]) == data.steps(recipe) == 4  # a batch of one image is left out
    for (x, y), (x2, y2) in zip(epochs["a"], epochs["again"], strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)
    first = epochs["a"][0][0]
    assert not torch.equal(first, epochs["next"][0][0])
    assert not torch.equal(first, epochs["seed"][0][0])
    seen = [round(float((v + 1) * 127.5)) for x, _ in epochs["a"] for v in x[:, 2, 0, 0]]
    assert len(set(seen)) == 20


def test_data_that_lie_class_by_class_are_mixed_for_statistics() -> None:
    data = _numbered(100)
    batches = [((x[:, 2, 0, 0] + 1) * 127.5).round() for x in data.mixed(20, 70)]
    assert [len(b) for b in batches] == [20, 20, 20]
    assert len(set(torch.cat(batches).tolist())) == 60
    assert all(b.min() < 30 and b.max() > 70 for b in batches)
    assert [len(b) for b in data.mixed(500, 500)] == [100]


def test_crop_shifts_and_flip_mirrors_within_bounds() -> None:
    data, recipe = _numbered(64), Recipe(batch_size=64, crop=2, flip=True)
    ((x, _),) = data.epoch(recipe, 0)
    pixels = ((x + 1) * 127.5).round()
    rows, columns = pixels[:, 0, :, 4], pixels[:, 1, 4, :]
    steps = rows[:, 1:] - rows[:, :-1]
    assert set(steps.flatten().tolist()) == {0.0, 1.0}
    assert set((rows[:, 4] - 4).tolist()) == {-2.0, -1.0, 0.0, 1.0, 2.0}
    mirrored = columns[:, 0] > columns[:, -1]
    assert 16 < int(mirrored.sum()) < 48
    plain = Recipe(batch_size=64)
    ((x, _),) = data.epoch(plain, 0)
    pixels = ((x + 1) * 127.5).round()
    assert torch.equal(pixels[:, 0, :, 0], torch.arange(8.0).expand(64, 8))


def test_balanced_sampling_draws_rare_classes_as_often() -> None:
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
    data = Batches(torch.zeros(1000, 1, 1, 1, dtype=torch.uint8), labels)
    seen = torch.cat([y for _, y in data.epoch(Recipe(balanced=True, batch_size=100), 0)])
    counts = torch.bincount(seen)
    assert int(counts.min()) > 250
