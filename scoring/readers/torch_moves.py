"""PyTorch's moves, which compute nothing: reshapes, slices, joins, borders; and the resizing of maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from scoring.readers.torch_operators import Recording, aten, get


@aten("view", "reshape", "_unsafe_view", "flatten", "squeeze", "unsqueeze", "unflatten", "_reshape_alias")
def _reshape(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    return r.node("Reshape", [r.value(a[0])], outs, shape=tuple(outs[0].shape))


@aten("permute")
def _permute(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    return r.node("Transpose", [r.value(a[0])], outs, perm=tuple(int(d) % a[0].dim() for d in a[1]))


@aten("transpose", "t", "numpy_T", "mT")
def _swap(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    order = list(range(a[0].dim()))
    i, j = (a[1], a[2]) if len(a) == 3 else (-2, -1)
    if len(order) > 1:
        order[i], order[j] = order[j], order[i]
    return r.node("Transpose", [r.value(a[0])], outs, perm=tuple(order))


@aten("expand", "expand_as", "broadcast_to")
def _expand(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    return r.node("Expand", [r.value(a[0])], outs, shape=tuple(outs[0].shape))


@aten("cat", "concat", "concatenate")
def _cat(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    axis = int(get(a, k, 1, "dim", 0)) % outs[0].dim()
    return r.node("Concat", [r.value(t) for t in a[0]], outs, axis=axis)


def _cut(r: Recording, x: Tensor, dim: int, start: int, end: int, step: int, out: Tensor) -> bool:
    dim %= x.dim()
    starts, ends, steps = [0] * x.dim(), list(x.shape), [1] * x.dim()
    starts[dim], ends[dim], steps[dim] = start, end, step
    attributes = {"starts": tuple(starts), "ends": tuple(ends), "steps": tuple(steps)}
    if out.dim() == x.dim():
        return r.node("Slice", [r.value(x)], [out], **attributes)
    with _disable_current_modes():
        piece = x.narrow(dim, start, 1)
    r.node("Slice", [r.value(x)], [piece], **attributes)
    return r.node("Reshape", [r.value(piece)], [out], shape=tuple(out.shape))


@aten("slice")
def _slice(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    x, dim, step = a[0], get(a, k, 1, "dim", 0), get(a, k, 4, "step", 1)
    start, end, _ = slice(get(a, k, 2, "start"), get(a, k, 3, "end"), step).indices(x.shape[dim])
    return _cut(r, x, dim, start, max(end, start), step, outs[0])


@aten("narrow")
def _narrow(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    x, dim, start, length = a
    start = int(start) % x.shape[dim]
    return _cut(r, x, dim, start, start + length, 1, outs[0])


@aten("select")
def _select(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    x, dim, index = a
    index = int(index) % x.shape[dim]
    return _cut(r, x, dim, index, index + 1, 1, outs[0])


@aten("split", "split_with_sizes", "chunk", "unbind", "tensor_split", "unsafe_split", "unsafe_chunk")
def _split(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    x, start = a[0], 0
    unbound = outs[0].dim() < x.dim()
    dim = int(get(a, k, 1 if unbound else 2, "dim", 0)) % x.dim()
    for out in outs:
        length = 1 if unbound else out.shape[dim]
        _cut(r, x, dim, start, start + length, 1, out)
        start += length
    return bool(start == x.shape[dim])


@aten("index_select")
def _index_select(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    x, dim, index = a
    return r.node("Gather", [r.value(x), r.value(index)], outs, axis=int(dim) % x.dim())


@aten("index")
def _index(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    x, indices = a
    given = [(d, i) for d, i in enumerate(indices) if i is not None]
    if len(given) != 1 or given[0][1].dtype == torch.bool or (given[0][1].dim() != 1 and given[0][0] != 0):
        return False
    return r.node("Gather", [r.value(x), r.value(given[0][1])], outs, axis=given[0][0])


@aten("embedding")
def _embedding(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    return r.node("Gather", [r.value(a[0]), r.value(a[1])], outs, axis=0)


@aten("pad", "constant_pad_nd", "reflection_pad2d", "replication_pad2d")
def _pad(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    x, pads = a[0], [int(p) for p in a[1]]
    third = a[2] if len(a) > 2 else k.get("mode", k.get("value", "constant"))
    mode = third if isinstance(third, str) else "constant"
    value = get(a, k, 3, "value", 0) if isinstance(third, str) else third
    if mode not in ("constant", "reflect", "replicate"):
        return False
    before, after = [0] * x.dim(), [0] * x.dim()
    for i in range(len(pads) // 2):
        before[x.dim() - 1 - i], after[x.dim() - 1 - i] = pads[2 * i], pads[2 * i + 1]
    return r.node("Pad", [r.value(x)], outs, pads=(*before, *after), mode=mode, value=float(value or 0))


@aten("channel_shuffle", "native_channel_shuffle")
def _channel_shuffle(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    x, groups = a
    batch, channels, *rest = x.shape
    split, turned = (batch, groups, channels // groups, *rest), (batch, channels // groups, groups, *rest)
    apart = r.hidden("Reshape", [r.value(x)], split, x.dtype, shape=split)
    perm = (0, 2, 1, *range(3, len(split)))
    swapped = r.hidden("Transpose", [apart], turned, x.dtype, perm=perm)
    return r.node("Reshape", [swapped], outs, shape=tuple(x.shape))


@aten("pixel_shuffle")
def _pixel_shuffle(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    return r.node("DepthToSpace", [r.value(a[0])], outs, block=int(a[1]))


@aten("pixel_unshuffle")
def _pixel_unshuffle(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    return r.node("SpaceToDepth", [r.value(a[0])], outs, block=int(a[1]))


@aten("roll")
def _roll(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    """Each axis is cut in two, and the pieces change places."""
    x, shifts, dims = a[0], a[1], get(a, k, 2, "dims", ())
    shifts = [shifts] if isinstance(shifts, int) else list(shifts)
    dims = [dims] if isinstance(dims, int) else list(dims)
    moves = [(d % x.dim(), s % x.shape[d]) for s, d in zip(shifts, dims, strict=False) if s % x.shape[d]]
    if not dims or not moves:
        return bool(dims) and r.node("Identity", [r.value(x)], outs)
    name, shape = r.value(x), tuple(x.shape)
    for i, (dim, shift) in enumerate(moves):
        pieces = []
        for start, end in ((shape[dim] - shift, shape[dim]), (0, shape[dim] - shift)):
            starts, ends, cut = [0] * len(shape), list(shape), list(shape)
            starts[dim], ends[dim], cut[dim] = start, end, end - start
            attributes = {"starts": tuple(starts), "ends": tuple(ends), "steps": (1,) * len(shape)}
            pieces.append(r.hidden("Slice", [name], tuple(cut), x.dtype, **attributes))
        if i + 1 == len(moves):
            return r.node("Concat", pieces, outs, axis=dim)
        name = r.hidden("Concat", pieces, shape, x.dtype, axis=dim)
    return True


@aten("_pad_circular")
def _circular_pad(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    return _padded(r, a[0], [int(p) for p in a[1]], outs)


def _padded(r: Recording, x: Tensor, pads: list[int], outs: list[Tensor]) -> bool:
    before, after = [0] * x.dim(), [0] * x.dim()
    for i in range(len(pads) // 2):
        before[x.dim() - 1 - i], after[x.dim() - 1 - i] = pads[2 * i], pads[2 * i + 1]
    return r.node("Pad", [r.value(x)], outs, pads=(*before, *after), mode="circular", value=0.0)


@aten("stack")
def _stack(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    """A new axis for each, and a concatenation along it."""
    dim = int(get(a, k, 1, "dim", 0)) % outs[0].dim()
    names = [r.value(t) for t in a[0]]
    if any(name in r.constants for name in names):
        return False
    shape = tuple(n if i != dim else 1 for i, n in enumerate(outs[0].shape))
    apart = [r.hidden("Reshape", [name], shape, outs[0].dtype, shape=shape) for name in names]
    return r.node("Concat", apart, outs, axis=dim)


# Resizing -----------------------------------------------------------------------------------------------------------


@aten("upsample_nearest2d")
def _nearest(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    factors = [o / i for o, i in zip(outs[0].shape[2:], a[0].shape[2:], strict=True)]
    if not all(f == int(f) for f in factors):
        return False
    return r.node("ResizeNearest", [r.value(a[0])], outs, factors=tuple(int(f) for f in factors))


@aten("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d")
def _linear_resize(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    align = bool(get(a, k, 2, "align_corners", False))
    return r.node("ResizeLinear", [r.value(a[0])], outs, size=tuple(outs[0].shape[2:]), align_corners=align)


@aten("upsample_bicubic2d")
def _cubic_resize(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    align = bool(get(a, k, 2, "align_corners", False))
    return r.node("ResizeCubic", [r.value(a[0])], outs, size=tuple(outs[0].shape[2:]), align_corners=align)


@aten("_upsample_bilinear2d_aa")
def _filtered_resize(r: Recording, a: Sequence[Any], k: dict[str, Any], outs: list[Tensor]) -> bool:
    """With a filter against steps: a larger picture needs none."""
    larger = all(m >= n for n, m in zip(a[0].shape[2:], outs[0].shape[2:], strict=True))
    return larger and _linear_resize(r, a, k, outs)
