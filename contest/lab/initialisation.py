"""How a network begins. Global pruning compares layers, so their initial sizes decide which one is emptied first."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from contest.errors import UsageError


def torch_defaults(model: nn.Module) -> None:
    """Every layer as its class draws it: what `nn.Linear(...)` and `nn.Conv2d(...)` give in a plain PyTorch program."""
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()


def kaiming(model: nn.Module) -> None:
    """Kaiming normal by fan-in for all convolutions and linear layers, the last one too; biases 0, batch norm 1 and 0.

    As the networks of SynFlow's published code begin (Tanaka 2020, arXiv 2006.05467).
    """
    torch_defaults(model)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def as_built(model: nn.Module) -> None:
    """As the network's family draws it for the contest's training recipes."""


INITIALISATIONS: dict[str, Callable[[nn.Module], None]] = {
    "torch": torch_defaults,
    "kaiming": kaiming,
    "family": as_built,
}


def initialise(model: nn.Module, how: str) -> nn.Module:
    """Draw the model's weights anew, in place, and return it; `how` is a name of `INITIALISATIONS`."""
    if how not in INITIALISATIONS:
        raise UsageError(f"initialisation '{how}' does not exist; there are {', '.join(INITIALISATIONS)}")
    INITIALISATIONS[how](model)
    return model
