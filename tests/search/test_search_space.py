"""Every point of the space is a network that can be built, and equal points are equal candidates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import pytest
from fake_trainer import Dice
from hypothesis import given, settings
from hypothesis import strategies as st

import scoring.readers.architecture
from contest.candidate import Bits, Candidate
from contest.errors import UsageError
from contest.networks import build, family_rows, macs_and_weights, parse
from contest.networks.options import Draw, ImageShape, Limit, Widths, bind, derived, specs
from contest.pipeline import stages
from scoring.readers.architecture import _costs_of_graph, _traced
from scoring.score import architecture_costs
from search.candidates import architecture_of, seeds, to_candidate
from search.given import nearest
from search.space import Dimension, Space, make_space, read_space, whole_space
from search.trainers.pipeline import price_before

COLOUR = (3, 32, 32)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from([COLOUR, (1, 28, 28), (1, 8, 8)]))
def test_every_candidate_can_be_built(seed: int, shape: tuple[int, int, int]) -> None:
    values = make_space(shape, {}).values(Dice(seed))
    candidate = to_candidate(values, epochs=10)
    macs, weights = macs_and_weights(candidate.architecture, shape, 10)
    assert macs > 0 < weights
    assert Candidate.from_json(candidate.to_json()) == candidate
    assert abs(sum(epochs for _, epochs in stages(candidate)) - 10) <= 1


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from([COLOUR, (1, 28, 28), (1, 8, 8)]), st.sampled_from([1, 2, 3, 4, 8, 32]))
def test_bits_that_are_priced_without_a_new_analysis_cost_what_an_analysis_says(
    seed: int, shape: tuple[int, int, int], weights: int
) -> None:
    """Everything in the table of costs, not only the score: of random networks with random bits in single layers."""
    candidate = to_candidate(make_space(shape, {}).values(Dice(seed)), epochs=10)
    bits = candidate.bits if seed % 2 else replace(candidate.bits, weights=weights)
    found = architecture_costs(candidate.architecture, bits, shape, 10)
    assert not found.allowances, "which are a file's"
    assert found == _costs_of_graph(_traced(candidate.architecture, shape, 10, True, half=False), bits)


def test_bits_are_priced_without_a_new_analysis(monkeypatch: pytest.MonkeyPatch) -> None:
    name = parse("thin:block=inverted,expansion=4,widths=8-12,depths=1-2,strides=2-2")
    first = architecture_costs(name, Bits(4, 4)).macs
    monkeypatch.setattr(scoring.readers.architecture, "analyse", lambda *_, **__: pytest.fail("analysed again"))
    for bits in (
        Bits(3, 4),
        Bits(2, 2, numbers=32),
        Bits(32, 32),
        Bits(5, 3, layers={"fc": (8, 8)}, per_channel=False),
    ):
        assert architecture_costs(name, bits).macs == first


@pytest.mark.slow
def test_three_thousand_candidates_can_be_built_and_priced() -> None:
    for number in range(3000):
        shape = (COLOUR, (1, 28, 28), (1, 8, 8))[number % 3]
        candidate = to_candidate(make_space(shape, {}).values(Dice(number)), epochs=10)
        assert price_before(candidate, "lab", shape, 10).total > 0


@given(st.integers(0, 10**9))
@settings(max_examples=20, deadline=None)
def test_a_point_on_the_grid_stays_where_it_is(seed: int) -> None:
    space = make_space(COLOUR, {})
    values = space.values(Dice(seed))
    assert space.complete(values) == values


def test_who_says_nothing_of_the_optimiser_has_sgd() -> None:
    """A study of before there was another; a network of one's own has the one that it was trained with."""
    space = make_space(COLOUR, {})
    assert space.complete({"family": "thin"})["optimiser"] == "sgd"
    point = next(values for values in seeds(space) if values["optimiser"] == "muon")
    candidate = to_candidate(point, epochs=10)
    assert candidate.train.optimiser == "muon" and candidate.tune.optimiser == "sgd"
    kept, exact = nearest(replace(candidate, train=replace(candidate.train, optimiser="sgd")), space)
    assert exact and kept["optimiser"] == "sgd"


@pytest.mark.parametrize("family", ["thin", "resnet", "dsresnet", "preact", "mobilenet", "densenet"])
def test_a_family_is_asked_for_its_own_dimensions_only(family: str) -> None:
    space = make_space(COLOUR, {"family": [family]})
    chooser = Dice(1)
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
        assert 5e6 < macs < 19e6
        assert candidate.bits.layers["first"] == (values["first_bits"],) * 2


def test_a_seed_is_not_moved_to_another_family() -> None:
    """A thin network at 3 bits that leaves full resolution early says nothing about a ResNet of those widths."""
    everywhere = seeds(make_space(COLOUR, {}))
    for family in ("resnet", "thin", "mobilenet"):
        there = seeds(make_space(COLOUR, {"family": family}))
        assert there == [values for values in everywhere if values["family"] == family]
    assert len(seeds(make_space(COLOUR, {"family": "preact"}))) > 1  # none of its own: the others', moved


@pytest.mark.parametrize("blocks_4", [0, 1])
def test_leaving_early_drops_the_first_stage_and_the_bits_stay_with_their_stages(blocks_4: int) -> None:
    values = (
        next(v for v in seeds(make_space(COLOUR, {})) if v.get("thin_block") == "basic")
        | {"weight_bits": 3, "activation_bits": 3}
        | {"blocks_4": blocks_4, "growth_4": 1.5, "shift_1": 1, "shift_3": -1}
    )
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
        values = space.values(Dice(seed))
        assert values["family"] == "resnet"
        assert values["weight_bits"] in (2, 3)
        assert 0.1 <= float(values["learning_rate"]) <= 0.2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": 1}, "no dimension 'colour'"),
        ({"family": "vit"}, "'vit' is not searched"),
        ({"weight_bits": "abc"}, "makes no network"),
        ({"schedule": "linear"}, "it is cosine, onecycle"),
        ({"width": {"lo": 1}}, "use low, high"),
        ({"width": {"low": 9, "high": 3}}, "must not lie above"),
        ({"width": []}, "give a value"),
        ({"width": {"low": 4, "high": 8, "step": 0}}, "step = 0 must be a whole number from 1"),
        ({"width": {"low": 4, "high": 8, "step": -2}}, "step = -2 must be a whole number from 1"),
        ({"width": {"low": 4.5, "high": 8}}, "must be whole numbers"),
        ({"learning_rate": {"low": 0.1, "high": float("inf")}}, "must not lie above"),
        ({"symmetric": {"low": 0, "high": 1}}, "it has no numbers; give values of False, True"),
        ({"weight_bits": True}, "weight_bits = True makes no network"),
        ({"weight_bits": 3.5}, "it is whole numbers, 1, 2, 3"),
    ],
)
def test_wrong_changes_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_space(COLOUR, changes)


def test_every_family_is_searchable_or_says_why_not() -> None:
    """One row a family: drawn at random, each can be built, quantised layer by layer and priced."""
    for name, row in family_rows().items():
        if row.not_searched:
            assert len(row.not_searched) > 10
            continue
        shape = (1, 28, 28) if name.startswith("mnist") else COLOUR
        space = make_space(shape, {"family": [name]})
        for seed in range(2):
            candidate = to_candidate(space.values(Dice(seed)), epochs=10)
            assert candidate.architecture.family == name
            assert set(candidate.architecture.options) <= set(row.options)
            price = price_before(candidate, "lab", shape, 10)
            assert 0 < price.total < price_before(replace(candidate, bits=Bits()), "lab", shape, 10).total


def test_a_family_with_an_option_of_an_unusual_name_is_drawn_from_its_signature() -> None:
    """What a newcomer writes: a function; the search needs no line for it."""

    def odd_net(
        image_shape: ImageShape,
        classes: int,
        *,
        cardinality: Annotated[int, Limit(1, 32)] = 4,
        fins: Widths = (8, 16),
        gated: bool = False,
        mood: Literal["calm", "wild"] = "calm",
    ) -> None: ...

    draws, from_draws = derived("odd_net", specs(odd_net))
    assert set(draws) == {"odd_net_cardinality", "odd_net_fins", "odd_net_gated", "odd_net_mood"}
    values = {name: draw.nearest(draw.middle()) for name, draw in draws.items()}
    options = from_draws({**values, "odd_net_fins": 0.5})
    assert options["fins"] == (4, 8) and options["mood"] in ("calm", "wild") and options["cardinality"] == 4
    assert bind("odd_net", odd_net, options) == options


def test_starting_points_fit_the_size_of_the_images() -> None:
    """The CIFAR ones cost 14 to 38 times too much on the digits."""
    digits = [to_candidate(v, epochs=10) for v in seeds(make_space((1, 8, 8), {}))]
    assert digits
    for candidate in digits:
        assert price_before(candidate, "digits", (1, 8, 8), 10).total < 0.02


def test_what_decides_nothing_makes_no_other_candidate() -> None:
    values = {**seeds(make_space(COLOUR, {}))[0], "structured": 0.0, "sparsity": 0.0}
    plain = to_candidate(values, epochs=10)
    assert plain == to_candidate({**values, "channels": "bn", "pruning": "snip"}, epochs=10)
    assert plain != to_candidate({**values, "sparsity": 0.5, "pruning": "snip"}, epochs=10)
    assert to_candidate({**values, "sparsity": 0.5, "pruning": "snip"}, epochs=10).pruning == "snip"


def test_a_dimension_with_a_recipes_field_reaches_the_training_and_the_tuning() -> None:
    space = whole_space()
    for name, part, value in (("momentum", "recipe", 0.8), ("tune_weight_decay", "compression", 1e-3)):
        space = Space({**space.parts, name: Dimension(Draw((value,)), part)})  # type: ignore[arg-type]
    made = to_candidate(space.complete({}), epochs=10.0)
    assert made.train.momentum == made.tune.momentum == 0.8
    assert made.tune.weight_decay == 1e-3 and made.train.weight_decay != 1e-3
    assert isinstance(made.train.batch_size, int) and made.tune.dampening == 0


def test_a_pruning_method_may_have_options_in_a_space() -> None:
    space = make_space(COLOUR, {"pruning": ["magnitude", "grasp:temperature=100"]})
    assert space.dimensions["pruning"].choices == ("magnitude", "grasp:temperature=100")
    with pytest.raises(UsageError, match="temperatur"):
        make_space(COLOUR, {"pruning": ["grasp:temperatur=100"]})


def test_a_point_of_a_study_of_before_is_the_same_candidate() -> None:
    """Dimensions that came later are not said where they change nothing, or resumed studies would train all again."""
    space = make_space((3, 32, 32), {})
    point = {**seeds(space)[0], "opposites": "none", "tail": "block", "pool_shortcut": False}
    before = {name: value for name, value in point.items() if name not in ("opposites", "tail", "pool_shortcut")}
    assert architecture_of(space.complete(before)) == architecture_of(point)
    assert not {"opposites", "tail"} & architecture_of(point).options.keys()
    assert architecture_of({**point, "tail": "wide", "pool_shortcut": True}).options["shortcut"] == "pool"
