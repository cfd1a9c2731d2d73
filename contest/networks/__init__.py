"""Architectures: families with options, presets with names, and timm's models.

from contest import networks
model = networks.build(networks.parse("resnet:depth=20,width=12"), image_shape=(3, 32, 32), classes=10)
"""

from contest.networks.registry import (
    build,
    families,
    family_rows,
    macs_and_weights,
    options,
    parse,
    presets,
    recipe,
    see,
)

__all__ = ["build", "families", "family_rows", "macs_and_weights", "options", "parse", "presets", "recipe", "see"]
