"""exact-k masks and the sparsity report, against PyTorch's own pruning, sorting, and arithmetic."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune as reference

from contest import pruning
from contest.errors import UsageError


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.integers(-2, 2), min_size=1, max_size=40),
    cut=st.integers(0, 40),
    share=st.floats(0, 1),
)
def test_exact_k_is_the_head_of_a_stable_sort(values: list[int], cut: int, share: float) -> None:
    cut = min(cut, len(values))
    keep = round(share * len(values))
    scores = {"a": torch.tensor(values[:cut], dtype=torch.float32), "b": torch.tensor(values[cut:]).double()}
    masks = pruning.exact_k(scores, keep)
    best = sorted(range(len(values)), key=lambda i: -values[i])[:keep]  # Python's sort is stable
    alive = torch.cat([masks["a"], masks["b"]])
    assert sorted(alive.nonzero().flatten().tolist()) == sorted(best)


def test_infinite_scores_have_their_place() -> None:
    scores = {"w": torch.tensor([-torch.inf, 1.0, torch.inf, 0.0, -torch.inf])}
    assert pruning.exact_k(scores, 2)["w"].tolist() == [False, True, True, False, False]
    assert pruning.exact_k(scores, 4)["w"].tolist() == [True, True, True, True, False]


def test_keeping_more_than_there_is_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot keep 4 of 3"):
        pruning.exact_k({"w": torch.ones(3)}, 4)


@pytest.mark.parametrize("amount", [0.1, 0.5, 0.93])
def test_magnitude_is_pytorchs_global_unstructured(amount: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 9, 3, groups=1), nn.Linear(9, 4))
    masks = pruning.prune(model, "magnitude", amount)
    layers = [(m, "weight") for m in model if isinstance(m, nn.Conv2d | nn.Linear)]
    reference.global_unstructured(layers, reference.L1Unstructured, amount=amount)
    for (layer, _), mask in zip(layers, masks.values(), strict=True):
        assert torch.equal(layer.weight_mask.bool(), mask)


def test_fine_grained_is_pytorchs_l1_unstructured_in_each_layer() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 20), nn.Linear(20, 10))
    masks = pruning.fine_grained_masks(model, {"0.weight": 0.8, "1.weight": 0.25})
    uniform = pruning.prune(model, "fine-grained", 0.6)
    for index, amount in enumerate((0.8, 0.25)):
        layer = nn.Linear(1, 1)
        layer.weight = nn.Parameter(model[index].weight.detach().clone())
        reference.l1_unstructured(layer, "weight", amount)
        assert torch.equal(layer.weight_mask.bool(), masks[f"{index}.weight"])
        layer = nn.Linear(1, 1)
        layer.weight = nn.Parameter(model[index].weight.detach().clone())
        reference.l1_unstructured(layer, "weight", 0.6)
        assert torch.equal(layer.weight_mask.bool(), uniform[f"{index}.weight"])
    with pytest.raises(UsageError, match=r"no prunable weight is called 2\.weight"):
        pruning.fine_grained_masks(model, {"2.weight": 0.5})


def test_biases_and_batch_norm_are_not_prunable() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ConvTranspose2d(4, 6, 2),
        nn.Conv1d(3, 3, 3, groups=3),
        nn.PReLU(),
        nn.Embedding(9, 4),
        nn.LayerNorm(4),
        nn.Linear(4, 2),
    )
    assert list(pruning.prunable(model)) == ["0.weight", "2.weight", "3.weight", "7.weight"]


def test_a_shared_weight_counts_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    assert list(pruning.prunable(model)) == ["0.weight"]


def test_masks_that_do_not_fit_are_refused() -> None:
    model = nn.Linear(3, 2)
    for masks, words in (
        ({"bias": torch.ones(2, dtype=torch.bool)}, "fits no prunable weight"),
        ({"weight": torch.ones(2, 3)}, "torch.bool"),
        ({"weight": torch.ones(3, 2, dtype=torch.bool)}, r"shape \(3, 2\)"),
    ):
        with pytest.raises(UsageError, match=words):
            pruning.validate(model, masks)
    with pytest.raises(UsageError, match="fits no prunable weight"):
        pruning.hold(model, {"other": torch.ones(1, dtype=torch.bool)})


def test_hold_makes_positive_zeros_even_of_nan() -> None:
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-1.0, torch.nan]]))
    pruning.hold(model, {"weight": torch.tensor([[False, False]])})
    assert model.weight.tolist() == [[0.0, 0.0]]
    assert not bool(model.weight.signbit().any())


PUBLISHED_TEXT = (32.98, 55.08, 69.89, 79.81, 86.45, 90.90, 93.89, 95.89, 97.23, 98.12)


def test_whole_model_sparsity_as_published() -> None:
    """As published: the text net's ten rounds of 33 %, and the MNIST net's first and last, to 0.01 point."""
    text = nn.Sequential(nn.Linear(5000, 256), nn.Linear(256, 256), nn.Linear(256, 256), nn.Linear(256, 1))
    mnist = nn.Sequential(nn.Linear(784, 1024), nn.Linear(1024, 1024), nn.Linear(1024, 10))
    assert sum(p.numel() for p in text.parameters()) == 1_412_097
    assert sum(p.numel() for p in mnist.parameters()) == 1_863_690
    for model, published in ((text, PUBLISHED_TEXT), (mnist, (32.96, *[None] * 8, 98.07))):
        masks: pruning.Masks | None = None
        for round_, expected in enumerate(published, 1):
            masks = pruning.prune(model, "magnitude", 1 - 0.67**round_, masks=masks)
            report = pruning.sparsity(model, masks)
            assert 100 * report.prunable == pytest.approx(100 * (1 - 0.67**round_), abs=1e-4)
            if expected is not None:
                assert 100 * report.model == pytest.approx(expected, abs=0.01)


def test_compression_ratio() -> None:
    assert pruning.sparsity_of_compression(1) == 0
    assert pruning.sparsity_of_compression(20) == 0.95
    with pytest.raises(UsageError, match="cannot be less"):
        pruning.sparsity_of_compression(0.5)
