"""Reports: accuracy, what is measured, what blocks ranking, and the keys that tools rely on."""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from scipy.stats import binomtest
from torch import Tensor, nn

from contest.datasets import Images
from contest.errors import RefusedError, UsageError
from scoring.costs import Costs, Examination, Operation, ParentCosts
from scoring.examine import examine
from scoring.report import (
    Report,
    accuracy,
    confusion,
    cross_entropy,
    difference_p_value,
    make_report,
    wilson,
    with_holdout,
)
from scoring.report_tables import show
from scoring.rules import load_rule, price
from scoring.score import score_module
from tests.scoring.helpers import Network, subject

LAB = load_rule("lab")
RULES = tuple(load_rule(name) for name in ("lab", "lab-macs", "micronet"))
COSTS = Costs(
    (
        Operation("a", "conv", macs=100, weights=50, nonzeros=40, weight_bits=4, activation_bits=8, operation_bits=8),
        Operation("b", "linear", macs=300, weights=50, nonzeros=50, weight_bits=2, activation_bits=4, operation_bits=4),
    ),
    parent=ParentCosts(200, 1600),
)


def labelled(right: int, total: int = 10_000, classes: int = 10) -> tuple[Examination, np.ndarray]:
    """An examination with this many right predictions."""
    labels = np.arange(total) % classes
    predicted = np.where(np.arange(total) < right, labels, (labels + 1) % classes)
    logits = np.eye(classes, dtype=np.float32)[predicted] * 5
    return Examination(COSTS, logits=logits, reordered=predicted.astype(np.int64), repeatable=True), labels


@pytest.mark.parametrize(("correct", "total"), [(9_000, 10_000), (0, 10), (10, 10), (1, 3), (4_231, 5_000)])
def test_wilson_interval_is_scipys(correct: int, total: int) -> None:
    expected = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    assert wilson(correct, total) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_loss_is_torchs() -> None:
    logits, labels = torch.randn(50, 7) * 9, torch.randint(0, 7, (50,))
    assert cross_entropy(logits.numpy(), labels.numpy()) == pytest.approx(
        F.cross_entropy(logits, labels).item(), abs=1e-5
    )


def test_confusion_and_difference() -> None:
    table = confusion(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2]), 3)
    assert table.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    # 900 and 850 of 1000: z = 0.05 / sqrt(0.875 * 0.125 * 2 / 1000) = 3.3806
    assert difference_p_value(900, 1000, 850, 1000) == pytest.approx(7.23e-4, rel=0.01)
    assert difference_p_value(5, 5, 3, 3) == 1.0


@pytest.mark.parametrize(("right", "status"), [(9_000, "rankable"), (8_999, "below"), (10_000, "rankable")])
def test_threshold_is_not_rounded(right: int, status: str) -> None:
    examination, labels = labelled(right)
    report = make_report(examination, LAB, RULES, labels=labels)
    assert (report.status, report.rankable) == (status, status == "rankable")
    assert report.accuracy is not None
    assert report.accuracy.correct == right
    if status == "below":
        assert report.accuracy_problem == "accuracy 0.8999 (8,999 of 10,000) is below the threshold of 0.9"
        assert report.problems == (report.accuracy_problem,) and report.file_problems == ()


def test_keys_that_tools_rely_on() -> None:
    examination, labels = labelled(9_100)
    claims = {"p_s": 0.5, "q_w": 4.0}
    provenance = {"seed": "3", "note": "best \x1b[31mever"}
    examined = dataclasses.replace(examination, claims=claims, provenance=provenance)
    report = make_report(examined, LAB, RULES, labels=labels)
    data = json.loads(json.dumps(report.to_json()))
    assert data["rule"] == "lab"
    assert set(data["scores"]) == {"lab", "lab-macs", "micronet"}
    for score in data["scores"].values():
        assert set(score) == {"params", "ops", "total", "total_with_bitmask"}
    assert {"value", "correct", "total", "low", "high"} <= set(data["accuracy"])
    assert set(data["measured"]) == {
        "p_s_weights",
        "p_s_ops",
        "p_u",
        "q_w",
        "q_a",
        "q_ops",
        "weights",
        "nonzeros",
        "parameters",
        "macs",
    }
    assert data["claimed"] == claims and data["provenance"] == provenance
    for row in data["layers"]:
        assert {"name", "kind", "macs", "weights", "nonzeros", "weight_bits", "activation_bits"} <= set(row)
    assert (data["unknown_operations"], data["problems"], data["rankable"]) == ([], [], True)
    assert Report.from_json(data).to_json() == data
    del data["provenance"]  # reports from before it was shown
    assert Report.from_json(data).provenance == {}
    console = Console(width=80, record=True, file=io.StringIO(), force_terminal=True)
    console.print(show(report))
    text = console.export_text()
    assert "not checked" in text and "best ?[31mever" in text


def test_measured_quantities_by_hand() -> None:
    report = make_report(Examination(COSTS), LAB, RULES)
    assert report.measured == {
        "p_s_weights": 0.5,
        "p_s_ops": 0.75,
        "p_u": 10 / 200,
        "q_w": pytest.approx((40 * 4 + 50 * 2) / 90),
        "q_a": 5.0,
        "q_ops": 5.0,
        "weights": 100,
        "nonzeros": 90,
        "parameters": 100,
        "macs": 400,
    }
    assert (report.status, report.rankable, report.accuracy) == ("costs-only", False, None)


def test_shares_of_layers_add_up() -> None:
    report = make_report(Examination(COSTS), LAB, RULES)
    assert sum(row["params_share"] for row in report.layers) == pytest.approx(1)
    assert sum(row["ops"] for row in report.layers) == pytest.approx(report.score.ops)


def test_order_dependence_and_randomness_block_ranking() -> None:
    examination, labels = labelled(9_500)
    assert examination.reordered is not None
    for changed, allowed in ((5, True), (6, False)):
        other = examination.reordered.copy()
        other[:changed] = (other[:changed] + 1) % 10
        report = make_report(dataclasses.replace(examination, reordered=other), LAB, RULES, labels=labels)
        assert report.rankable is allowed
    random = make_report(dataclasses.replace(examination, repeatable=False), LAB, RULES, labels=labels)
    assert random.status == "flagged"
    assert "two runs over the same images" in random.problems[0]


def test_unknown_operations_block_ranking() -> None:
    examination, labels = labelled(9_500)
    costs = dataclasses.replace(COSTS, unknown_operations=("aten.cumsum at 'x'",))
    report = make_report(dataclasses.replace(examination, costs=costs), LAB, RULES, labels=labels)
    assert report.status == "flagged"
    assert report.unknown_operations == ("aten.cumsum at 'x'",)


def test_holdout_gap_beyond_chance_is_flagged() -> None:
    examination, labels = labelled(9_200)
    report = make_report(examination, LAB, RULES, labels=labels)
    worse, other = labelled(1_700, total=2_000)
    flagged = with_holdout(report, worse, other)
    assert flagged.holdout is not None
    assert flagged.holdout["gap"] == pytest.approx(0.07)
    assert "the hold-out is 7.00 points below the test set" in flagged.flags[0]
    near, other = labelled(1_830, total=2_000)
    assert with_holdout(report, near, other).flags == ()


def test_details() -> None:
    examination, labels = labelled(9_000)
    report = make_report(examination, LAB, RULES, labels=labels, details=True, classes=list("abcdefghij"))
    assert report.details is not None
    assert [row["name"] for row in report.details["per_class"]] == list("abcdefghij")
    assert sum(row["correct"] for row in report.details["per_class"]) == 9_000
    assert np.array(report.details["confusion"]).sum() == 10_000


def test_from_json_refuses_other_data() -> None:
    with pytest.raises(UsageError, match="not a report"):
        Report.from_json({"rule": "lab"})


# The examination of a running network -----------------------------------------------------------------------------


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()


def images(count: int = 40) -> Images:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % 10)


def test_accuracy_is_that_of_the_module() -> None:
    data, model = images(), net()
    report = score_module(model, (3, 8, 8), images=data)
    expected = (model(data.pixels.float() / 255).argmax(1) == data.labels).sum().item()
    assert report.accuracy is not None
    assert (report.accuracy.correct, report.accuracy.total) == (expected, 40)
    assert report.scores["lab"] == price(Costs.from_json(report.costs), LAB)


def test_module_is_left_as_it_was() -> None:
    model = net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    examine(subject(model), images().pixels)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not model._forward_pre_hooks
    assert not model[0]._forward_hooks


def test_batch_coupling_is_found() -> None:
    def run(s: nn.Module, x: Tensor) -> Tensor:
        return s.net(x) * 0.01 + s.net(x).flip(0)

    found = examine(subject(Network(run, net=net())), images().pixels)
    assert found.reordered is not None
    assert found.predictions is not None
    assert (found.reordered != found.predictions).sum() > 5


def test_a_network_with_a_state_is_found() -> None:
    def run(s: nn.Module, x: Tensor) -> Tensor:
        s.count.add_(1.0)
        return s.net(x) + s.count

    found = examine(subject(Network(run, net=net(), count=torch.zeros(1))), images().pixels)
    assert any("'count' changes while the network runs" in problem for problem in found.costs.problems)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Network(lambda s, x: s.a(x), a=nn.Conv2d(3, 4, 1)), "it must give logits"),
        (Network(lambda s, x: s.a(x * s.b).mean((2, 3)), a=nn.Conv2d(3, 4, 1), b=torch.tensor(float("nan"))), "NaN"),
    ],
)
def test_refused_networks(model: nn.Module, message: str) -> None:
    with pytest.raises(RefusedError, match=message):
        examine(subject(model))


def test_claims_beyond_the_whole_are_refused() -> None:
    claimed = dataclasses.replace(subject(net()), claims={"p_s": 0.7, "p_u": 0.6})
    with pytest.raises(RefusedError, match=r"p_s = 0.7 and p_u = 0.6"):
        examine(claimed)


def test_images_of_another_shape_are_refused() -> None:
    with pytest.raises(RefusedError, match=r"takes images of \(3, 8, 8\)"):
        examine(subject(net()), torch.zeros(2, 1, 8, 8, dtype=torch.uint8))


def test_accuracy_of_few_classes() -> None:
    assert accuracy(np.array([[1.0, 2.0]], dtype=np.float32), np.array([1])).value == 1.0


def test_a_disagreement_with_fvcore_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    from scoring import verification
    from scoring.verification import SecondOpinion

    assert examine(subject(net())).costs.problems == ()
    monkeypatch.setattr(verification, "fvcore_count", lambda *_: SecondOpinion(1, {}, ()))
    said = f"multiply-accumulates: {4 * 36 * 27 + 1440:,} counted here, 1 by fvcore"
    costs = examine(subject(net())).costs  # fvcore alone is not believed
    assert (costs.problems, costs.notes) == ((), (said,))
    monkeypatch.setattr(verification, "dispatched_macs", lambda *_: 2)
    assert examine(subject(net())).costs.problems == (f"{said}, 2 by PyTorch's dispatch counter",)


def test_the_loss_of_a_report_does_not_spell_out_the_labels() -> None:
    """Logits whose margins are powers of ten make a loss with a digit for each image; three digits tell three."""
    labels = np.array([0, 1, 1, 0, 1, 0, 0, 1])
    logits = np.stack([np.zeros(8), -(10.0 ** np.arange(8))], 1).astype(np.float32)
    exact = cross_entropy(logits, labels) * 8
    assert [int(exact // 10.0**i) % 10 for i in range(1, 8)] == labels[1:].tolist()
    loss = accuracy(logits, labels).loss
    assert loss is not None and loss == float(f"{exact / 8:.3g}") != exact / 8
