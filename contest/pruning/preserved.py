"""A scoring pass leaves the model as it was."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from contest.training.device import cpu_convolutions


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Give the model and the random generators back bit for bit, whatever happens inside. Gradients are safe there.

    Parameters (objects, storages, values, dtypes), buffers, gradients, `requires_grad` and training flags
    of every module, and the states of Python's, NumPy's and torch's generators.
    """
    modules = [(module, module.training, dict(module._parameters), dict(module._buffers)) for module in model.modules()]
    parameters = [(p, p.data, p.data.clone(), p.requires_grad, p.grad) for p in model.parameters()]
    buffers = [(buffer, buffer.data, buffer.data.clone()) for buffer in model.buffers()]
    # What weight norm and the like left behind in the last forward pass: those inside leave other values and types.
    computed = [
        (module, weight) for module in model.modules() if isinstance(weight := vars(module).get("weight"), Tensor)
    ]
    with_dropout = [module for module in model.modules() if isinstance(module, nn.RNNBase | nn.MultiheadAttention)]
    dropouts = [(module, module.dropout) for module in with_dropout]
    python, numpy = random.getstate(), np.random.get_state()
    for parameter in model.parameters():
        parameter.grad = None  # out of reach: a cast of the model would cast its gradients too
    try:
        with torch.random.fork_rng(), cpu_convolutions(model):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        for recurrent, dropout in dropouts:
            recurrent.dropout = dropout
        for module, weight in computed:
            module.__dict__["weight"] = weight
        with torch.no_grad():
            for module, training, own_parameters, own_buffers in modules:
                module.training = training
                module._parameters.update(own_parameters)
                module._buffers.update(own_buffers)
            for tensor, data, value in buffers:
                tensor.data = data
                tensor.copy_(value)
            for parameter, data, value, requires_grad, gradient in parameters:
                parameter.grad = None
                parameter.data = data
                parameter.copy_(value)
                parameter.requires_grad_(requires_grad)
                parameter.grad = gradient
