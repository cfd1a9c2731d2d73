"""Quantisation-aware training with Brevitas layers and fused learned-step quantisers."""

from contest.quantisation.layers import calibrate, dampen, quantise, quantised_layers, set_masks
from contest.quantisation.lsq import LearnedStep, integer_range

__all__ = ["LearnedStep", "calibrate", "dampen", "integer_range", "quantise", "quantised_layers", "set_masks"]
