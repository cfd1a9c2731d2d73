"""timm's networks by name: costs, or a sentence; never a traceback."""

from __future__ import annotations

import random

import pytest
import timm

from contest.errors import UsageError
from contest.networks import parse
from scoring.readers.architecture import _traced
from scoring.score import architecture_costs


@pytest.mark.parametrize("name", ["crossvit_9_240", "xcit_nano_12_p8_224", "edgenext_xx_small"])
def test_networks_for_other_images_say_which(name: str) -> None:
    try:
        costs = architecture_costs(parse(f"timm/{name}"), image_shape=(3, 32, 32), normalise=False)
    except UsageError as error:
        assert "--image-shape 3," in str(error)
    else:
        assert costs.macs > 0


def test_a_timm_network_is_not_kept() -> None:
    """Its graph holds its weights: a process that prices many grew to 20 GB."""
    kept = _traced.cache_info().currsize
    assert architecture_costs(parse("timm/resnet10t"), image_shape=(3, 64, 64), normalise=False).macs > 0
    assert _traced.cache_info().currsize == kept


@pytest.mark.slow
def test_a_sample_of_all_names() -> None:
    names = random.Random(0).sample(timm.list_models(), 150)
    failed = {}
    for name in names:
        try:
            assert architecture_costs(parse(f"timm/{name}"), image_shape=(3, 64, 64), normalise=False).macs > 0
        except UsageError as error:
            assert "--image-shape" in str(error) or "cannot be built" in str(error)
        except Exception as error:  # any other exception is a traceback for whoever typed the name
            failed[name] = f"{type(error).__name__}: {error}"
    assert not failed
