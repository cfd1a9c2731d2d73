"""Steps in all directions of a layer at once: SGD whose steps of convolutions are made orthogonal.

The gradient of a layer is mostly of a few directions, which SGD therefore learns first. Muon (Jordan 2024,
https://kellerjordan.github.io/posts/muon) takes, in place of the momentum M = U S V', the matrix U V', in which every
direction has the same length: six epochs of inverted blocks on CIFAR-10 end 2.3 points higher (docs/record).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of x -> ax + bx^3 + cx^5, which takes singular values from 0 to 1 to about 1 in few iterations (Jordan 2024)."""
ITERATIONS = 4
TINY = 1e-12
LENGTH = 0.4
"""A step of a learning rate of 1 by the length of the weights: 0.12, which suits the rest, moves them by 5 %."""


def is_turned(module: nn.Module) -> bool:
    """Whether the weights of a layer are stepped so: convolutions that mix channels and have no bias, since a batch
    norm follows them. One that begins as zero has no length to keep, and is left to SGD."""
    if not isinstance(module, nn.Conv2d) or module.bias is not None or module.groups > 1:
        return False
    return min(module.weight.shape[:2]) > 1 and bool(module.weight.detach().any())


class Muon(torch.optim.SGD):
    """SGD, but that groups with `turned` set move by an orthogonal matrix.

    Such a step is the learning rate's part of the weights' length, and leaves their length as it is. That is right
    where a batch norm follows: it takes the length away, and what is left of a step is how far it turns.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step. Raises what SGD raises."""
        turned = [(p, g, self._ahead(p, g, group["beta"])) for group in self.param_groups for p, g in _turned(group)]
        lengths = [p.norm() for p, _, _ in turned]
        for stack in _same_shape(turned):
            for (p, g, _), direction in zip(stack, orthogonal(torch.stack([m for _, _, m in stack])), strict=True):
                g.copy_((direction * (p.norm() / direction.norm().clamp_min(TINY))).view_as(p))
        result = super().step(closure)
        for (p, _, _), length in zip(turned, lengths, strict=True):
            p.mul_(length / p.norm().clamp_min(TINY))
        return result

    def _ahead(self, p: Tensor, gradient: Tensor, beta: float) -> Tensor:
        """Nesterov's momentum of a parameter, as a matrix."""
        state = self.state[p]
        mean = state["mean"] = gradient.clone() if "mean" not in state else state["mean"].mul_(beta).add_(gradient)
        return gradient.add(mean, alpha=beta).flatten(1)


Moved = tuple[Tensor, Tensor, Tensor]
"""A parameter, its gradient, and the momentum as a matrix."""


def _turned(group: dict[str, Any]) -> list[tuple[Tensor, Tensor]]:
    return [(p, p.grad) for p in group["params"] if group.get("turned") and p.grad is not None]


def _same_shape(moved: list[Moved]) -> list[list[Moved]]:
    found: dict[torch.Size, list[Moved]] = {}
    for one in moved:
        found.setdefault(one[2].shape, []).append(one)
    return list(found.values())


def orthogonal(matrices: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """About U V' of each of `matrices` [N, rows, columns] = U S V', by Newton and Schulz's iteration (Jordan 2024)."""
    x = matrices.float()
    x = x / x.flatten(1).norm(dim=1).clamp_min(TINY).view(-1, 1, 1)
    wide = x.shape[1] <= x.shape[2]
    x = x if wide else x.mT
    a, b, c = COEFFICIENTS
    for _ in range(iterations):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x if wide else x.mT
