"""Forecasts, verdicts, plans and sensitivity against arithmetic written out."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from contest.candidate import Architecture, Bits, Candidate
from contest.errors import UsageError
from search.policy.budget import Speed, halving_share, make_plan, parse_duration
from search.policy.extrapolation import LONGER, Foresight
from search.policy.ranking import Judge
from search.policy.refinement import Group, groups, saving_for
from search.study.settings import Settings
from search.study.trial import Price, Record, Result
from search.trainers.bit_sensitivity import Sensitivity, higher, lower


def record(
    number: int,
    curve: tuple[tuple[float, float], ...],
    *,
    score: float = 0.005,
    macs: int = 10_000_000,
    stage: str = "explore",
    rung: int = 1,
    seed: int = 0,
    params: dict[str, float] | None = None,
) -> Record:
    price = Price(params=0.2 * score, ops=0.8 * score, macs=macs, weights=macs // 150)
    accuracy = curve[-1][1]
    result = Result(round(5000 * accuracy), 5000, price, curve, model="model.pt" if curve[-1][0] == 1 else None)
    candidate = Candidate(Architecture("resnet", {"width": number}), Bits(4, 4), seed=seed)
    return Record(
        number,
        "COMPLETE",
        f"key{number}",
        stage,
        rung,
        candidate,
        params=params or {"n": number},
        result=result,  # type: ignore[arg-type]
    )


def test_wilson_lower_bound_is_the_textbook_one() -> None:
    """Brown, Cai, DasGupta 2001, example: 45 of 50 at 95 % gives [0.786, 0.957]."""
    result = Result(45, 50, Price(0, 0, 1, 1))
    assert result.lower(None, z=1.959964) == pytest.approx(0.7864, abs=1e-3)
    assert result.lower(0.01) == pytest.approx(0.89)
    many = Result(4500, 5000, Price(0, 0, 1, 1))
    assert 0.9 - many.lower(None) == pytest.approx(math.sqrt(0.09 / 5000), rel=0.05)  # one sigma: 0.42 points


def test_a_forecast_follows_the_ratios_of_this_study() -> None:
    """Five curves whose error halves between the middle and the end: so will the next one's."""
    done = [record(n, ((0.5, 1 - e), (1.0, 1 - e / 2))) for n, e in enumerate((0.2, 0.3, 0.4, 0.5, 0.25))]
    end = Foresight(done).end(((0.5, 0.6),))
    assert end.expected == pytest.approx(0.8)
    assert end.optimistic == pytest.approx(0.8)
    refined = Foresight(done, epochs_ratio=4.0).refined(((0.5, 0.6), (1.0, 0.8)))
    assert refined.expected == pytest.approx(1 - 0.2 * 4**-LONGER)
    assert refined.optimistic > refined.expected


def test_before_a_study_knows_better_an_optimist_does_not_give_up() -> None:
    forecast = Foresight([]).end(((0.25, 0.35),))
    assert forecast.optimistic > 0.88
    assert Foresight([]).end(()).expected == 1.0


def test_a_paused_candidate_is_not_expected_to_pass_a_finished_one_that_was_ahead_of_it() -> None:
    """The first finished curve already says what the rest of a training gives; the optimist stays free to hope."""
    finished = record(1, ((0.34, 0.622), (1.0, 0.654)))
    paused = Foresight([finished]).end(((0.34, 0.595),))
    assert paused.expected == pytest.approx(1 - 0.405 * 0.346 / 0.378)
    assert paused.expected < 0.654 < 0.8 < paused.optimistic


def test_refinements_teach_what_long_trainings_gain() -> None:
    explored = [record(n, ((1.0, 1 - e),), params={"n": n}) for n, e in enumerate((0.2, 0.4, 0.3))]
    longer = [record(10 + n, ((1.0, 1 - e),), stage="refine", params={"n": n}) for n, e in enumerate((0.1, 0.2, 0.15))]
    foresight = Foresight([*explored, *longer], epochs_ratio=16.0)
    # 0.2 -> 0.1 with 16 times the epochs: the exponent is 1/4
    assert foresight.refined(((1.0, 0.6),)).expected == pytest.approx(1 - 0.4 * 16**-0.25)


def test_too_small_networks_are_learned_to_be_skipped() -> None:
    """Accuracy rises with size on a straight line of logits; far below the line's crossing of 90 % is hopeless."""
    sizes = [int(1e6 * 1.5**k) for k in range(10)]
    done = [
        record(n, ((1.0, 1 / (1 + math.exp(-(0.8 * math.log(m / 4e6) + 2.2)))),), macs=m) for n, m in enumerate(sizes)
    ]
    settings = Settings(threshold=0.9, explore_epochs=10, refine_epochs=0, margin=0.0)
    judge = Judge(settings, done, 10)
    candidate = done[0].candidate
    small = judge.before(candidate, Price(0.0001, 0.0004, 1_000_000, 6_666))
    assert small is not None and "too small" in small.reason and small.violation is not None and small.violation > 0
    assert judge.before(candidate, Price(0.0001, 0.0004, 8_000_000, 53_333)) is None


def test_nobody_is_hopeless_before_somebody_is_promising() -> None:
    settings = Settings(threshold=0.9, explore_epochs=10, refine_epochs=10, margin=0.0)
    bad = [record(n, ((0.5, 0.5), (1.0, 0.6))) for n in range(6)]
    assert Judge(settings, bad, 10).hopeless(((0.5, 0.3),), Price(0, 0, 1, 1)) is None
    good = record(9, ((0.5, 0.88), (1.0, 0.93)))
    verdict = Judge(settings, [*bad, good], 10).hopeless(((0.5, 0.3),), Price(0, 0, 1, 1))
    assert verdict is not None and verdict.violation is not None and verdict.violation > 0


def test_a_small_network_is_not_stopped_for_being_worse_than_the_median() -> None:
    """Nine at 97 %, one at 91 %, all above the threshold: the small one goes on, and wins."""
    settings = Settings(threshold=0.9, explore_epochs=10, refine_epochs=10, margin=0.0)
    large = [record(n, ((0.5, 0.95), (1.0, 0.97)), score=0.02) for n in range(9)]
    judge = Judge(settings, large, 10)
    assert judge.hopeless(((0.5, 0.86),), Price(0, 0, 1, 1)) is None
    small = record(20, ((0.5, 0.86), (1.0, 0.91)), score=0.004)
    assert Judge(settings, [*large, small], 10).leaders()[0].number == 20


def test_the_incumbent_sets_the_price_limit() -> None:
    settings = Settings(threshold=0.9, margin=0.0)
    confirmed = record(1, ((1.0, 0.92),), score=0.006, stage="refine")
    judge = Judge(settings, [confirmed], 10)
    assert judge.limit() == pytest.approx(0.006)
    assert judge.before(confirmed.candidate, Price(0.001, 0.006, 1, 1)) is not None
    assert judge.before(confirmed.candidate, Price(0.001, 0.004, 1, 1)) is None
    missed = record(2, ((1.0, 0.89),), score=0.001, stage="refine")
    assert Judge(settings, [missed], 10).limit() is None


def test_seeds_of_a_candidate_count_by_their_median() -> None:
    members = [
        replace(record(n, ((1.0, a),), stage="refine", seed=n), candidate=Candidate(Architecture("x"), seed=n))
        for n, a in enumerate((0.91, 0.88, 0.9))
    ]
    (group,) = groups(members)
    assert isinstance(group, Group)
    assert group.median.result is not None and group.median.result.accuracy == pytest.approx(0.9)
    assert group.spread == pytest.approx(0.01528, abs=1e-4)


def test_more_spare_accuracy_asks_for_a_larger_saving() -> None:
    assert saving_for(0.90, 0.90) == pytest.approx(0.08)
    assert saving_for(0.95, 0.90) == pytest.approx(0.23)
    assert saving_for(0.999, 0.90) == 0.4


def test_bits_go_where_a_bit_weighs_least() -> None:
    """Of two layers with the same price, the one whose loss rises less loses a bit; the other gains one."""
    candidate = Candidate(Architecture("resnet"), Bits(4, 4))
    layers = [Sensitivity("stages.0", 4, 4, 0.5), Sensitivity("stages.1", 4, 4, 0.01)]

    def score(c: Candidate) -> float:
        return sum(sum(c.bits.layers.get(name, (4, 4))) for name in ("stages.0", "stages.1")) / 16

    cheaper = lower(candidate, layers, score, saving=0.1)
    assert cheaper is not None and dict(cheaper.bits.layers) == {"stages.1": (3, 3)}
    half = lower(candidate, layers, score, saving=0.25)
    assert half is not None and dict(half.bits.layers) == {"stages.0": (3, 3), "stages.1": (3, 3)}
    better = higher(candidate, layers, score)
    assert better is not None and dict(better.bits.layers) == {"stages.0": (5, 5)}


@pytest.mark.parametrize(
    ("text", "seconds"), [("2h", 7200), ("45m", 2700), ("1h30m", 5400), ("90s", 90), ("1.5h", 5400)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "two hours", "2", "h"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--budget"):
        parse_duration(text)


def test_halving_costs_what_arithmetic_says() -> None:
    """All go to 0.34, one in three from there to the end: 0.34 + 0.66 / 3 = 0.56."""
    assert halving_share(Settings(rungs=(0.34, 1.0), reduction=3)) == pytest.approx(0.56)
    assert halving_share(Settings(rungs=(1.0,))) == 1.0


@pytest.mark.parametrize("budget_s", [120, 600, 3600, 7200, 36000])
@pytest.mark.parametrize("trials", [None, 20, 100])
def test_a_plan_fits_its_budget(budget_s: float, trials: int | None) -> None:
    speed = Speed(2000, 1200, 3.0, 45_000, 250.0)
    plan = make_plan(Settings(trials=trials, budget_s=budget_s), speed, budget_s)
    least = (trials or 1) * 2 * speed.epoch_s() * halving_share(plan.settings)
    if least < 0.4 * budget_s:
        assert plan.total_s <= budget_s
    assert plan.settings.explore_epochs >= 2
    if plan.settings.refine_epochs:
        assert plan.settings.refine_epochs >= plan.settings.explore_epochs
    if budget_s <= 3600:
        assert plan.settings.teacher_epochs == 0  # a fifth of an hour trains no teacher here


def test_settings_survive_the_disk(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("study")
    settings = Settings(trials=7, space={"weight_bits": [2, 3]}, rungs=(0.2, 0.5, 1.0))
    settings.save(directory)
    assert Settings.load(directory) == settings
    with pytest.raises(UsageError, match="must rise and end with"):
        Settings(rungs=(0.5, 0.2, 1.0))
    with pytest.raises(UsageError, match="needs the score"):
        Settings(objective="target")
