"""Augmentation of batches against one image at a time in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contest.datasets import images


def batch(seed: int, size: int = 5, height: int = 9, width: int = 7, channels: int = 3) -> torch.Tensor:
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.integers(0, 256, (size, height, width, channels), dtype=np.uint8))


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 1000),
    st.integers(1, 6),
    st.integers(2, 12),
    st.integers(2, 12),
    st.sampled_from([1, 3]),
    st.data(),
)
def test_crop_is_a_window_of_numpys_reflected_padding(
    seed: int, size: int, height: int, width: int, channels: int, data: st.DataObject
) -> None:
    padding = data.draw(st.integers(1, min(height, width) - 1))
    x = batch(seed, size, height, width, channels)
    random = np.random.default_rng(seed)
    down, right = random.integers(0, 2 * padding + 1, (2, size))
    cropped = images.crop(x, torch.from_numpy(down), torch.from_numpy(right), padding)
    for index in range(size):
        edges = ((padding, padding), (padding, padding), (0, 0))
        padded = np.pad(x[index].numpy(), edges, mode="reflect")
        window = padded[down[index] : down[index] + height, right[index] : right[index] + width]
        assert np.array_equal(cropped[index].numpy(), window)


def test_crop_in_the_middle_changes_nothing() -> None:
    x = batch(0)
    middle = torch.full((5,), 4)
    assert torch.equal(images.crop(x, middle, middle, 4), x)


def test_flip_mirrors_the_chosen_images_only() -> None:
    x = batch(1)
    mirrored = torch.tensor([True, False, True, False, False])
    flipped = images.flip(x, mirrored)
    for index in range(5):
        expected = x[index].numpy()[:, ::-1] if mirrored[index] else x[index].numpy()
        assert np.array_equal(flipped[index].numpy(), expected)


@pytest.mark.parametrize("side", [1, 4, 5, 20])
def test_cutout_paints_a_clipped_square(side: int) -> None:
    x, fill = batch(2), torch.tensor([1, 2, 3], dtype=torch.uint8)
    down, right = torch.tensor([0.0, 0.5, 0.99, 0.2, 0.7]), torch.tensor([0.0, 0.5, 0.99, 0.9, 0.1])
    cut = images.cutout(x, down, right, side, fill)
    for index in range(5):
        expected = x[index].numpy().copy()
        top, left = int(down[index] * 9) - side // 2, int(right[index] * 7) - side // 2
        expected[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = fill.numpy()
        assert np.array_equal(cut[index].numpy(), expected)


@settings(deadline=None, max_examples=60)
@given(st.floats(0, 1), st.floats(0, 0.999), st.floats(0, 0.999))
def test_cutmix_share_is_the_area_that_stays(share: float, down: float, right: float) -> None:
    x = torch.zeros(2, 8, 10, 1, dtype=torch.uint8)
    x[1] = 255
    box = images.box(share, down, right, 8, 10)
    mixed, left = images.cutmix(x, torch.tensor([1, 0]), box)
    assert left == pytest.approx((mixed[0] == 0).float().mean().item())
    assert left == pytest.approx((mixed[1] == 255).float().mean().item())
    assert left >= share - 1e-6 or left == 1  # clipping and whole pixels only ever shrink the box
    assert x[0].max() == 0, "the batch itself must not change"


def test_to_float_is_exactly_the_pixel_by_255() -> None:
    x = torch.arange(256, dtype=torch.uint8).view(4, 8, 8, 1).expand(4, 8, 8, 3).contiguous()
    y = images.to_float(x)
    assert y.shape == (4, 3, 8, 8) and y.is_contiguous(memory_format=torch.channels_last)
    expected = (np.arange(256).astype(np.float32) / np.float32(255)).reshape(4, 8, 8)
    assert np.array_equal(y[:, 1].numpy(), expected)


def test_pixels_scale_with_the_image() -> None:
    assert [images.scaled(4, side, side) for side in (224, 32, 28, 8)] == [28, 4, 4, 1]
    assert images.scaled(32, 8, 8) == 7, "a reflection needs fewer pixels than the image has"
