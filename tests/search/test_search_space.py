"""Every point of the space is a network that can be built, and equal points are equal candidates."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contest.candidate import Candidate
from contest.errors import UsageError
from contest.networks import build, macs_and_weights
from contest.pipeline import stages
from search.space.space import FAMILIES, Value, make_space, read_space, to_candidate
from search.space.starting_points import seeds
from search.trainers.pipeline import with_epochs
from search.trainers.scores import price_before

COLOUR = (3, 32, 32)


class Chooser:
    """Answers like an Optuna trial, from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.asked: list[str] = []

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Value:
        self.asked.append(name)
        return self.random.choice(list(choices))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        self.asked.append(name)
        return self.random.randrange(low, high + 1, step)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.asked.append(name)
        return self.random.uniform(low, high)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from([COLOUR, (1, 28, 28), (1, 8, 8)]))
def test_every_candidate_can_be_built(seed: int, shape: tuple[int, int, int]) -> None:
    values = make_space(shape, {}).values(Chooser(seed))
    candidate = to_candidate(values, epochs=10)
    macs, weights = macs_and_weights(candidate.architecture, shape, 10)
    assert macs > 0 < weights
    assert Candidate.from_json(candidate.to_json()) == candidate
    assert abs(sum(epochs for _, epochs in stages(candidate)) - 10) <= 1


@pytest.mark.slow
def test_three_thousand_candidates_can_be_built_and_priced() -> None:
    for number in range(3000):
        shape = (COLOUR, (1, 28, 28), (1, 8, 8))[number % 3]
        candidate = to_candidate(make_space(shape, {}).values(Chooser(number)), epochs=10)
        assert price_before(candidate, "lab", shape, 10).total > 0


@given(st.integers(0, 10**9))
@settings(max_examples=20, deadline=None)
def test_a_point_on_the_grid_stays_where_it_is(seed: int) -> None:
    space = make_space(COLOUR, {})
    values = space.values(Chooser(seed))
    assert space.complete(values) == values


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_asked_for_its_own_dimensions_only(family: str) -> None:
    space = make_space(COLOUR, {"family": [family]})
    chooser = Chooser(1)
    values = space.values(chooser)
    assert "family" not in chooser.asked  # one choice is no question
    assert ("expansion" in values) == (family in ("mobilenet", "thin"))
    assert ("dense_growth" in values) == (family == "densenet")
    assert ("width" in values) == (family != "densenet")


def test_seeds_lie_where_the_record_is_expected() -> None:
    space = make_space(COLOUR, {})
    for values in seeds(space):
        assert space.complete(values) == values
        candidate = to_candidate(values, epochs=10)
        macs, _ = macs_and_weights(candidate.architecture, COLOUR, 10)
        assert 5e6 < macs < 18e6
        assert candidate.bits.layers["stem"] == (values["first_bits"],) * 2


def test_a_seed_is_not_moved_to_another_family() -> None:
    """A thin network at 3 bits that leaves full resolution early says nothing about a ResNet of those widths."""
    everywhere = seeds(make_space(COLOUR, {}))
    for family in ("resnet", "thin", "mobilenet"):
        there = seeds(make_space(COLOUR, {"family": family}))
        assert there == [values for values in everywhere if values["family"] == family]
    assert len(seeds(make_space(COLOUR, {"family": "preact"}))) > 1  # none of its own: the others', moved


@pytest.mark.parametrize("blocks_4", [0, 1])
def test_leaving_early_drops_the_first_stage_and_the_bits_stay_with_their_stages(blocks_4: int) -> None:
    values = seeds(make_space(COLOUR, {}))[1] | {"blocks_4": blocks_4, "growth_4": 1.5, "shift_1": 1, "shift_3": -1}
    assert values["early"]
    early = to_candidate(values, epochs=10)
    options = early.architecture.options
    assert options["stem_width"] == 16 and options["widths"] == ((32, 64, 96) if blocks_4 else (32, 64))
    assert options["strides"] == ((2, 2, 2) if blocks_4 else (2, 2))
    third = "stages.2" if blocks_4 else "stages.1"
    assert early.bits.layers["stages.0"] == (4, 4) and early.bits.layers[third] == (2, 2)
    modules = dict(build(early.architecture, COLOUR, 10).named_modules())
    assert "stages.0" in modules and third in modules and modules["stages.0"][0].body.conv1.in_channels == 16


def test_narrowing(tmp_path: Path) -> None:
    file = tmp_path / "space.toml"
    file.write_text('family = "resnet"\nweight_bits = [2, 3]\nlearning_rate = {low = 0.1, high = 0.2}\n')
    space = make_space(COLOUR, read_space(file))
    for seed in range(20):
        values = space.values(Chooser(seed))
        assert values["family"] == "resnet"
        assert values["weight_bits"] in (2, 3)
        assert 0.1 <= float(values["learning_rate"]) <= 0.2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": 1}, "no dimension 'colour'"),
        ({"family": "vit"}, "'vit' is not searched"),
        ({"width": {"lo": 1}}, "use low, high"),
        ({"width": {"low": 9, "high": 3}}, "must not lie above"),
        ({"width": []}, "give a value"),
    ],
)
def test_wrong_changes_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_space(COLOUR, changes)


def test_longer_trainings_keep_their_proportions() -> None:
    candidate = to_candidate(seeds(make_space(COLOUR, {}))[0], epochs=10)
    long = with_epochs(candidate, 40)
    assert (long.train.epochs, long.tune.epochs) == (20, 20)
    assert long.architecture == candidate.architecture
