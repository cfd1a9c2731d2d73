"""Images as tensors and the stratified split."""

from __future__ import annotations

import hashlib
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contest.datasets import Images, load, split
from contest.errors import DataError


def images(labels: list[int]) -> Images:
    values = torch.tensor(labels)
    return Images(torch.arange(len(values), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2), values)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=120), st.data())
def test_split_is_stratified_and_complete(labels: list[int], data: st.DataObject) -> None:
    number = data.draw(st.integers(1, len(labels) - 1))
    parts = split(images(labels), number, seed=3)
    assert len(parts.validation) == number
    together = torch.cat([parts.train_index, parts.validation_index]).sort().values
    assert together.tolist() == list(range(len(labels)))
    for value in set(labels):
        share = labels.count(value) * number / len(labels)
        assert abs(int((parts.validation.labels == value).sum()) - share) < 1 + 1e-9
    assert torch.equal(parts.validation.labels, torch.tensor(labels)[parts.validation_index])


def test_split_depends_on_the_seed_alone_and_says_so() -> None:
    data = images([0, 1, 2, 3] * 25)
    one, again, other = split(data, 20, 7), split(data, 20, 7), split(data, 20, 8)
    assert one.sha256 == again.sha256 != other.sha256
    indices = one.train_index.tolist() + one.validation_index.tolist()
    assert one.sha256 == hashlib.sha256(b"".join(struct.pack("<q", index) for index in indices)).hexdigest()


def test_split_is_the_same_on_every_machine() -> None:
    parts = split(load("digits").train, 300, seed=0)
    assert parts.sha256 == "0982d53fa6cd2913bb73e705e1faf5c0f3085a832c025769af19df2090121234"


@pytest.mark.parametrize("number", [0, 4, 5])
def test_split_leaves_images_on_both_sides(number: int) -> None:
    with pytest.raises(DataError, match=f"{number} images does not fit in 4"):
        split(images([0, 1, 0, 1]), number)


def test_take_keeps_order_and_channels_last() -> None:
    data = Images(torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4), torch.tensor([5, 6]), flips=False)
    taken = data.take(torch.tensor([1, 0, 1]))
    assert torch.equal(taken.pixels, data.pixels[[1, 0, 1]]) and taken.labels.tolist() == [6, 5, 6]
    assert taken.pixels.is_contiguous(memory_format=torch.channels_last) and not taken.flips
    assert taken.shape == (3, 4, 4)


def test_images_refuse_other_types_and_shapes() -> None:
    pixels = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    with pytest.raises(DataError, match=r"pixels are torch\.float32"):
        Images(pixels.float(), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(DataError, match="one for each image"):
        Images(pixels, torch.zeros(3, dtype=torch.int64))


def test_cifar10_and_mnist_have_their_published_statistics(data_directory: object) -> None:
    cifar, mnist = load("cifar10"), load("mnist")
    assert cifar.test is not None and mnist.test is not None
    assert cifar.train.labels.bincount().tolist() == [5000] * 10 and len(cifar.test) == 10_000
    assert cifar.image_shape == (3, 32, 32) and mnist.image_shape == (1, 28, 28)
    mean = cifar.train.pixels.double().mean((0, 2, 3)) / 255
    assert mean.tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=1e-4)
    assert mnist.train.pixels.double().mean().item() / 255 == pytest.approx(0.1307, abs=1e-4)
    assert cifar.flips and not mnist.flips
