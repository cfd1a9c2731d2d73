"""What a network takes: bytes on disk in the formats that people use, really written, operations a sample, and time."""

from __future__ import annotations

import io
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from contest.model_file.packing import packed_tensor
from contest.pruning.batches import Inputs, forward, samples, tensors
from contest.pruning.latent import plain_copy
from contest.pruning.prunable import layers, owner, prunable


@contextmanager
def module_by_module() -> Iterator[None]:
    """Transformers call their modules one by one, as they are written, and not one fused kernel in their place."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def layer_macs(model: nn.Module, example: Inputs) -> dict[str, int]:
    """Multiply-accumulates of each prunable weight for one sample, by its name.

    A layer that is called several times (a recurrent use) counts each call; one that is never called is 0. A matrix of
    a recurrent or attention module is multiplied once for each step of the sequence; an embedding only looks up.

    Args:
        example: a batch of inputs; counts are divided by its size.
    """
    batch, macs = samples(example), dict.fromkeys(prunable(model), 0)
    own = layers(model)
    handles = []
    for name in macs:
        attention = _attention_of(model, name)
        layer = None if attention is not None else own.get(name)
        module = layer or attention or owner(model, name)

        def count(
            module: nn.Module, args: Any, kwargs: Any, outputs: Any, name: str = name, layer: Any = layer
        ) -> None:
            if layer is not None:
                macs[name] += _of_layer(layer, tensors(args)[0], tensors(outputs)[0]) // batch
            elif not isinstance(module, nn.Embedding | nn.EmbeddingBag):
                inputs = (tensors(args) or tensors(kwargs))[0]
                steps = inputs.numel() // inputs.shape[-1] // batch
                macs[name] += steps * model.get_parameter(name).numel()

        handles.append(module.register_forward_hook(count, with_kwargs=True))
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), module_by_module():
            forward(model, example)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return macs


def _of_layer(layer: nn.Module, inputs: Tensor, outputs: Tensor) -> int:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    transposed = bool(getattr(layer, "transposed", False))
    places = inputs if transposed else outputs  # each is read, or written, once for each of these products
    return places.numel() * math.prod(weight.shape[1:])


def _attention_of(model: nn.Module, name: str) -> nn.Module | None:
    """The attention module whose weight this is: it multiplies with all of them itself, its output layer's too."""
    module = owner(model, name)
    if isinstance(module, nn.MultiheadAttention):
        return module
    if name.endswith("out_proj.weight"):
        parent = model.get_submodule(name.removesuffix(".weight").rpartition(".")[0])
        return parent if isinstance(parent, nn.MultiheadAttention) else None
    return None


MEGABYTE = 1e6
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Sizes:
    """Bytes of a state dict in each format."""

    dense_bytes: int
    """float32, as torch.save writes it."""
    coo_bytes: int
    """Prunable weights as sparse COO tensors: each value with an 8-byte index a dimension."""
    csr_bytes: int
    """Prunable weights as sparse CSR matrices [first dimension, the rest]: an 8-byte column each."""
    packed_bytes: int
    """Nonzero values at their bits behind a bitmask of 1 bit a weight: what the score believes in."""

    def megabytes(self) -> dict[str, float]:
        return {name.removesuffix("_bytes"): size / MEGABYTE for name, size in asdict(self).items()}


def sizes(model: nn.Module) -> Sizes:
    """The sizes of a float network with its zeros; the packed one stores 32-bit values.

    Batch norm's counters of batches are left out of all formats; a weight that layers share counts once; weights that
    layers compute from others are stored as they are multiplied with.
    """
    model = plain_copy(model)
    state = _stored(model)
    names = set(prunable(model))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        coo = {n: t.to_sparse() if n in names else t for n, t in state.items()}
        csr = {n: _csr(t) if n in names else t for n, t in state.items()}
        return Sizes(_saved(state), _saved(coo), _saved(csr), sum(len(packed_tensor(t)) for t in state.values()))


def _stored(model: nn.Module) -> dict[str, Tensor]:
    """What has to be stored: every number once, under its first name."""
    seen: set[tuple[int, tuple[int, ...]]] = set()
    found = {}
    for name, tensor in model.state_dict().items():
        key = (tensor.data_ptr(), tuple(tensor.shape))
        if name.endswith("num_batches_tracked") or (tensor.numel() and key in seen):
            continue
        seen.add(key)
        found[name] = tensor.detach().cpu()
    return found


def packed_bytes(model: nn.Module) -> int:
    """Bytes of a float or quantised network, packed: codes of quantised weights at their bits, all else as stored.

    Latent weights do not count where codes stand for them; neither do masks, which the zeros of the codes say.
    """
    total = 0
    coded: set[int] = set()
    for module in model.modules():
        quantiser = getattr(getattr(module, "weight_quant", None), "tensor_quant", None)
        if quantiser is not None:
            weight = module.weight
            assert isinstance(weight, Tensor)
            coded |= {id(weight), id(quantiser.mask)}
            total += len(packed_tensor(quantiser.codes(weight.detach()), quantiser.bits))
    tensors = {
        id(t): t for t in (*model.parameters(), *model.buffers()) if id(t) not in coded and t.is_floating_point()
    }
    return total + sum(len(packed_tensor(tensor)) for tensor in tensors.values())


def _csr(weight: Tensor) -> Tensor:
    """As a sparse matrix that owns its indices: to_sparse_csr's are views of larger ones, which would be saved."""
    sparse = weight.flatten(1).to_sparse_csr()
    parts = (sparse.crow_indices().clone(), sparse.col_indices().clone(), sparse.values().clone())
    return torch.sparse_csr_tensor(*parts, sparse.shape, check_invariants=True)


def _saved(state: Mapping[str, Tensor]) -> int:
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.tell()


@dataclass(frozen=True)
class Latency:
    """Seconds of one forward pass of a whole batch."""

    mean_s: float
    std_s: float
    median_s: float
    """Unlike the mean, not moved by the runs in which another program had the processor."""
    low_s: float
    high_s: float
    """Between these lies the middle half of the runs."""
    runs: int
    batch: int
    threads: int

    def values(self) -> dict[str, float]:
        """Plain data for a cell."""
        return asdict(self)


def timed(run: Callable[[], object], *, batch: int, threads: int, runs: int = 20, warmup: int = 3) -> Latency:
    """Time `run`; the warm-up runs (allocation, autotuning, caches) are not counted."""
    for _ in range(warmup):
        run()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    deviation = statistics.stdev(seconds) if runs > 1 else 0.0
    low, median, high = statistics.quantiles(seconds, n=4) if runs > 1 else seconds * 3
    return Latency(statistics.fmean(seconds), deviation, median, low, high, runs, batch, threads)


TIMED_TESTS, TIMED_SECONDS = 3, 10.0
"""So many passes over the test set are timed, as long as they take no longer than that."""


def timed_tests(test: Callable[[], float]) -> tuple[float, list[float]]:
    """What the last pass over the test set gives, and the seconds of each."""
    times: list[float] = []
    while len(times) < TIMED_TESTS and (not times or sum(times) < TIMED_SECONDS):
        start = time.perf_counter()
        metric = test()
        times.append(time.perf_counter() - start)
    return metric, times


def torch_latency(model: nn.Module, inputs: Inputs, *, runs: int = 20, warmup: int = 3) -> Latency:
    """A forward pass in evaluation mode; on a GPU the clock waits for the device."""
    training = model.training
    model.eval()
    on_gpu = any(tensor.is_cuda for tensor in tensors(inputs))

    def run() -> None:
        with torch.inference_mode():
            forward(model, inputs)
        if on_gpu:
            torch.cuda.synchronize()

    found = timed(run, batch=samples(inputs), threads=torch.get_num_threads(), runs=runs, warmup=warmup)
    model.train(training)
    return found
