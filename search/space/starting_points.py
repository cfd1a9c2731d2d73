"""Known good starting points: ordinary candidates that a study trains before its sampler proposes any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from search.space.space import Space, Value

SEEDS: Sequence[Mapping[str, Value]] = (
    # Inverted blocks, 8.4M MACs: after eight epochs 7M MACs of them are as good as 12.5M of the next (docs/record).
    {"family": "thin", "early": True, "width": 16, "growth_2": 1.5, "growth_3": 2.5, "blocks_2": 2, "blocks_3": 3,
     "blocks_4": 0, "thin_block": "inverted", "expansion": 4.0, "weight_bits": 4, "activation_bits": 4,
     "sparsity": 0.4, "structured": 0.0, "first_bits": 5, "tune_learning_rate": 0.01},
    # Thin residual networks that leave 32x32 right after the stem, 12.5 and 17.2M MACs: after five epochs they are
    # 2.5 and 4 points ahead of the ResNet-8 of 12.5M MACs (docs/record).
    {"family": "thin", "early": True, "width": 16, "growth_2": 2.0, "growth_3": 2.0, "blocks_2": 1, "blocks_3": 2,
     "blocks_4": 0, "thin_block": "basic", "weight_bits": 3, "activation_bits": 3, "sparsity": 0.6, "structured": 0.0},
    {"family": "thin", "early": True, "width": 16, "growth_2": 2.0, "growth_3": 2.0, "blocks_2": 1, "blocks_3": 3,
     "blocks_4": 0, "thin_block": "basic", "weight_bits": 3, "activation_bits": 3, "sparsity": 0.6, "structured": 0.0},
    # 8 to 15M MACs at 3 to 4 bits with learned steps: where the arithmetic of the score and the published
    # low-bit ResNet-20 (APoT, arXiv 1909.13144) put the record.
    {"family": "resnet", "width": 16, "growth_2": 2.0, "growth_3": 2.0, "blocks_1": 1, "blocks_2": 1,
     "blocks_3": 1, "weight_bits": 4, "activation_bits": 4, "sparsity": 0.4, "structured": 0.0},
    {"family": "resnet", "width": 12, "growth_2": 2.0, "growth_3": 2.0, "blocks_1": 2, "blocks_2": 2,
     "blocks_3": 2, "weight_bits": 4, "activation_bits": 4, "sparsity": 0.4, "structured": 0.0},
    {"family": "resnet", "width": 12, "growth_2": 2.0, "growth_3": 2.0, "blocks_1": 1, "blocks_2": 2,
     "blocks_3": 3, "weight_bits": 3, "activation_bits": 3, "sparsity": 0.5, "structured": 0.0},
    {"family": "mobilenet", "width": 16, "growth_2": 1.5, "growth_3": 2.0, "blocks_1": 1, "blocks_2": 2,
     "blocks_3": 3, "expansion": 3.0, "kernel": 3, "weight_bits": 5, "activation_bits": 5, "sparsity": 0.2,
     "structured": 0.0},
)  # fmt: skip
_COMMON: Mapping[str, Value] = {
    "early": False, "blocks_1": 1, "expansion": 3.0, "stem_stride": 1, "shortcut": "projection",
    "shift_1": 0, "shift_3": 0, "first_bits": 8, "last_bits": 8,
    "learning_rate": 0.2, "weight_decay": 5e-4, "schedule": "onecycle", "label_smoothing": 0.0, "cutout": 0,
    "mixup": 0.0, "cutmix": 0.0,
    "tune_share": 0.5, "tune_learning_rate": 0.05,
}  # fmt: skip


def seeds(space: Space) -> list[dict[str, Value]]:
    """Starting points of the families that `space` searches, on its grids, without repetition.

    What is known of one family is not known of another that shares the names of its dimensions; only where the space
    searches none of theirs, all are moved onto its grids.
    """
    families = space.dimensions["family"].grid()
    known = [seed for seed in SEEDS if seed["family"] in families] or SEEDS
    found: list[dict[str, Value]] = []
    for seed in known:
        values = space.complete({**_COMMON, **seed})
        if values not in found:
            found.append(values)
    return found
