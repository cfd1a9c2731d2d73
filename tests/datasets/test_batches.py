"""Batches: every image once, the same for (seed, epoch), labels mixed as the images are."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from contest.candidate import Recipe
from contest.datasets import Batches, Images, load
from contest.errors import UsageError
from contest.training import soft_labels

PLAIN = Recipe(batch_size=10, flip=False, crop=0)


def numbered(count: int = 50, flips: bool = True) -> Images:
    """Image i is uniformly grey of value i and of class i % 5."""
    values = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1)
    return Images(values.expand(count, 1, 32, 32).contiguous(), torch.arange(count) % 5, flips)


def values(x: torch.Tensor) -> list[int]:
    return [round(value) for value in (x[:, 0, 0, 0] * 255).tolist()]


def test_each_loop_is_the_next_epoch_with_every_image_once() -> None:
    batches = Batches(numbered(), PLAIN)
    first = [(values(x), targets.tolist()) for x, targets in batches]
    second = [(values(x), targets.tolist()) for x, targets in batches]
    assert len(first) == len(batches) == 5
    for epoch in (first, second):
        assert sorted(value for batch, _ in epoch for value in batch) == list(range(50))
        assert all(
            value % 5 == target for batch, targets in epoch for value, target in zip(batch, targets, strict=True)
        )
    assert first != second
    direct = [(values(batch.images), batch.targets.tolist()) for batch in batches.epoch(1)]
    assert direct == second


def test_the_short_rest_is_dropped_and_small_sets_are_one_batch() -> None:
    assert [len(x) for x, _ in Batches(numbered(38), PLAIN)] == [10, 10, 10]
    assert [len(x) for x, _ in Batches(numbered(7), PLAIN)] == [7]


@pytest.mark.parametrize(
    "recipe", [Recipe(), Recipe(cutout=8), Recipe(mixup=0.4), Recipe(cutmix=1.0), Recipe(mixup=0.4, cutmix=1.0)]
)
def test_seed_and_epoch_decide_everything(recipe: Recipe) -> None:
    data = load("digits").train
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = [(b.images, b.targets) for b in Batches(data, recipe, seed=4).epoch(2)]
    torch.rand(3)
    again = [(b.images, b.targets) for b in Batches(data, recipe, seed=4).epoch(2)]
    other = [(b.images, b.targets) for b in Batches(data, recipe, seed=5).epoch(2)]
    assert all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(one, again, strict=True))
    assert not torch.equal(one[0][0], other[0][0])
    torch.set_rng_state(state)


def test_images_are_floats_with_channels_last() -> None:
    for recipe in (Recipe(), Recipe(mixup=1.0), Recipe(cutmix=1.0)):
        x, _ = next(iter(Batches(numbered(), recipe)))
        assert x.dtype == torch.float32 and x.min() >= 0 and x.max() <= 1
        assert x.permute(0, 2, 3, 1).is_contiguous()


def halves(flips: bool) -> Images:
    """Black on the left, white on the right."""
    pixels = torch.zeros(200, 1, 32, 32, dtype=torch.uint8)
    pixels[..., 16:] = 255
    return Images(pixels, torch.zeros(200, dtype=torch.int64), flips)


def test_about_half_is_mirrored_and_digits_never() -> None:
    recipe = Recipe(batch_size=200, crop=0)
    mirrored = next(iter(Batches(halves(True), recipe)))[0][:, 0, 0, 0].mean().item()
    assert 0.35 < mirrored < 0.65
    assert next(iter(Batches(halves(False), recipe)))[0][:, 0, 0, 0].sum() == 0
    assert not Batches(load("digits").train, Recipe()).flip


def test_alternating_flips_show_each_image_both_ways_in_turn() -> None:
    recipe = Recipe(batch_size=200, crop=0, alternate_flips=True)
    pixels = halves(True).pixels.clone()
    pixels[:, 0, 16, 16] = torch.arange(200, dtype=torch.uint8)  # one pixel off the middle says which image it is
    data = Images(pixels, torch.zeros(200, dtype=torch.int64))
    seen = []
    for number in range(3):
        (batch,) = Batches(data, recipe, seed=5).epoch(number)
        mirrored = batch.images[:, 0, 0, 0] > 0.5
        marks = torch.where(mirrored, batch.images[:, 0, 16, 15], batch.images[:, 0, 16, 16])
        seen.append(mirrored[(marks * 255).round().argsort()])
    assert torch.equal(seen[0], ~seen[1]) and torch.equal(seen[0], seen[2])
    assert 0.35 < seen[0].float().mean() < 0.65
    (still,) = Batches(halves(False), recipe).epoch(0)
    assert still.images[:, 0, 0, 0].sum() == 0


def test_crop_moves_by_up_to_its_padding_evenly() -> None:
    pixels = torch.zeros(2000, 1, 32, 32, dtype=torch.uint8)
    pixels[:, :, 16, 16] = 255
    data = Images(pixels, torch.zeros(2000, dtype=torch.int64))
    x = next(iter(Batches(data, Recipe(batch_size=2000, crop=4, flip=False))))[0]
    place = x.flatten(1).argmax(1)
    for axis in (place // 32, place % 32):
        counts = axis.bincount(minlength=32)
        assert counts.nonzero().flatten().tolist() == list(range(12, 21))
        assert counts[12:21].min() > 150  # 222 each are expected, 14 is their standard deviation


def test_cutout_shows_the_mean_pixel() -> None:
    data = numbered()
    x = next(iter(Batches(data, Recipe(batch_size=50, flip=False, crop=0, cutout=16))))[0]
    inner = (x[:, :, 12:20, 12:20] * 255).round().to(torch.uint8)
    assert (inner == 24).float().mean() > 0.2  # the mean of 0 .. 49 is 24.5 and rounds to even


@pytest.mark.parametrize(
    "recipe", [Recipe(batch_size=50, flip=False, crop=0, mixup=1.0), Recipe(batch_size=50, cutmix=1.0)]
)
def test_targets_and_soft_labels_have_the_shares_of_the_pixels(recipe: Recipe) -> None:
    """Class i % 2 is black or white, so the mean of an image is its share of class 1."""
    pixels = (torch.arange(50) % 2 * 255).to(torch.uint8).view(-1, 1, 1, 1).expand(50, 1, 32, 32).contiguous()
    data = Images(pixels, torch.arange(50) % 2)
    certain = torch.tensor([[200.0, 0.0], [0.0, 200.0]])[data.labels]
    for batch in Batches(data, recipe, soft_labels=certain).epoch(0):
        share = batch.images.mean((1, 2, 3))
        assert batch.targets.shape == (50, 2) and batch.soft is not None
        torch.testing.assert_close(batch.targets[:, 1], share)
        torch.testing.assert_close(batch.targets.sum(1), torch.ones(50))
        torch.testing.assert_close(batch.soft, batch.targets, atol=1e-5, rtol=0)
        clear = (share - 0.5).abs() > 1e-3
        assert torch.equal(batch.labels[clear], (share > 0.5).long()[clear])


def test_soft_labels_follow_their_images_at_the_temperature() -> None:
    logits = torch.randn(50, 5)
    for batch in Batches(numbered(), Recipe(batch_size=10, temperature=3.0), soft_labels=logits).epoch(0):
        assert batch.soft is not None
        torch.testing.assert_close(batch.soft, (logits[values(batch.images)] / 3).softmax(1))


@pytest.mark.parametrize("mixed", [{}, {"cutmix": 1.0}, {"mixup": 0.5, "cutout": 8}])
def test_each_image_comes_with_the_answer_for_that_image(mixed: dict[str, Any]) -> None:
    pixels = torch.randint(0, 256, (50, 1, 32, 32), dtype=torch.uint8)
    data = Images(pixels, torch.zeros(50, dtype=torch.int64))

    class Corners(torch.nn.Module):
        """As logits the sum of two opposite corners, which a mirrored image has too, and the sum over all."""

        def forward(self, x: Tensor) -> Tensor:
            top, bottom = x[:, 0, 0], x[:, 0, -1]
            return torch.stack([top[:, 0] + top[:, -1], bottom[:, 0] + bottom[:, -1], x.mean((1, 2, 3))], 1)

    recipe = Recipe(batch_size=16, temperature=0.5, taught_epochs=3, **mixed)
    answers = soft_labels(Corners(), data, recipe=recipe)
    assert answers.shape == (3, 48, 3)
    epochs: list[list[Tensor]] = []
    for number in range(6):
        epochs.append([])
        for batch in Batches(data, recipe, seed=number, soft_labels=answers).epoch(number):
            assert batch.soft is not None
            torch.testing.assert_close(batch.soft, (Corners()(batch.images) / 0.5).softmax(1))
            epochs[-1].append(batch.images)
    shown = [torch.cat(images) for images in epochs]
    assert all(torch.equal(shown[k], shown[k + 3]) for k in range(3)), "round and round, whatever the seed"
    assert not torch.equal(shown[0], shown[1]) and not torch.equal(shown[1], shown[2])
    with pytest.raises(UsageError, match=r"must be \[2, 48, classes\].*taught_epochs = 2"):
        Batches(data, dataclasses.replace(recipe, taught_epochs=2), soft_labels=answers)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match=r"\[49, 5\]; they must be \[50, classes\]"):
        Batches(numbered(), PLAIN, soft_labels=torch.zeros(49, 5))
    with pytest.raises(UsageError, match="batch_size is 0"):
        Batches(numbered(), Recipe(batch_size=0))
    with pytest.raises(UsageError, match="no images"):
        Batches(numbered(0), PLAIN)
