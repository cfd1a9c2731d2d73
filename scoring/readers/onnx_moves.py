"""ONNX's moves, which compute nothing: constants, reshapes, slices, joins, borders; and the resizing of maps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import torch

from scoring.readers.onnx_operators import Building, Unsupported, operator, optional, shape_of


@operator("Constant")
def _constant(b: Building, proto: Any, a: dict[str, Any]) -> None:
    if "value" in a:
        b.store(proto.output[0], a["value"])
        return
    plain = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    for name, dtype in plain.items():
        if name in a:
            b.fold(proto.output[0], torch.from_numpy(np.array(a[name], dtype=dtype)))
            b.stored[proto.output[0]] = None
            return
    raise Unsupported


@operator("ConstantOfShape")
def _constant_of_shape(b: Building, proto: Any, a: dict[str, Any]) -> None:
    shape = b.ints(proto.input[0])
    if math.prod(shape) > 10_000_000:
        raise Unsupported
    value = onnx.numpy_helper.to_array(a["value"]) if "value" in a else np.zeros(1, np.float32)
    b.fold(proto.output[0], torch.from_numpy(np.full(shape, value.reshape(-1)[0])))


@operator("Shape")
def _shape_of(b: Building, proto: Any, a: dict[str, Any]) -> None:
    shape = shape_of(b, proto.input[0])[a.get("start", 0) : a.get("end")]
    b.fold(proto.output[0], torch.tensor(shape, dtype=torch.int64))


@operator("Reshape")
def _reshape(b: Building, proto: Any, a: dict[str, Any]) -> None:
    old, wanted = shape_of(b, proto.input[0]), b.ints(proto.input[1])
    if not a.get("allowzero", 0):
        wanted = tuple(old[i] if n == 0 else n for i, n in enumerate(wanted))
    _to_shape(b, proto, wanted)


def _to_shape(b: Building, proto: Any, wanted: tuple[int, ...]) -> None:
    x = b.values[proto.input[0]]
    if proto.input[0] in b.constants and not x.is_floating_point() and x.dtype in (torch.int64, torch.int32):
        b.fold(proto.output[0], x.reshape(wanted))
    else:
        b.emit("Reshape", (proto.input[0],), proto.output[0], shape=tuple(x.reshape(wanted).shape))


@operator("Flatten")
def _flatten(b: Building, proto: Any, a: dict[str, Any]) -> None:
    shape = shape_of(b, proto.input[0])
    axis = int(a.get("axis", 1))
    axis = axis + len(shape) if axis < 0 else axis
    _to_shape(b, proto, (math.prod(shape[:axis]), math.prod(shape[axis:])))


@operator("Squeeze", "Unsqueeze")
def _squeeze(b: Building, proto: Any, a: dict[str, Any]) -> None:
    shape = list(shape_of(b, proto.input[0]))
    axes = tuple(a["axes"]) if "axes" in a else b.ints(proto.input[1]) if optional(proto, 1) else None
    if proto.op_type == "Squeeze":
        gone = {axis % len(shape) for axis in axes} if axes is not None else {i for i, n in enumerate(shape) if n == 1}
        _to_shape(b, proto, tuple(n for i, n in enumerate(shape) if i not in gone))
        return
    assert axes is not None
    rank = len(shape) + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        shape.insert(axis, 1)
    _to_shape(b, proto, tuple(shape))


@operator("Transpose")
def _transpose(b: Building, proto: Any, a: dict[str, Any]) -> None:
    perm = tuple(a.get("perm", reversed(range(b.values[proto.input[0]].dim()))))
    b.emit("Transpose", (proto.input[0],), proto.output[0], perm=perm)


@operator("Expand")
def _expand(b: Building, proto: Any, a: dict[str, Any]) -> None:
    shape = torch.broadcast_shapes(shape_of(b, proto.input[0]), b.ints(proto.input[1]))
    b.emit("Expand", (proto.input[0],), proto.output[0], shape=tuple(shape))


@operator("Concat")
def _concat(b: Building, proto: Any, a: dict[str, Any]) -> None:
    first = b.values[proto.input[0]]
    if all(name in b.constants for name in proto.input) and first.dtype == torch.int64:
        b.fold(proto.output[0], torch.cat([b.values[name] for name in proto.input], int(a["axis"])))
        return
    axis = int(a["axis"]) % first.dim()
    b.emit("Concat", tuple(proto.input), proto.output[0], axis=axis)


@operator("Slice")
def _slice(b: Building, proto: Any, a: dict[str, Any]) -> None:
    shape = shape_of(b, proto.input[0])
    if "starts" in a:
        starts, ends, axes, steps = tuple(a["starts"]), tuple(a["ends"]), a.get("axes"), None
    else:
        starts, ends = b.ints(proto.input[1]), b.ints(proto.input[2])
        axes = b.ints(proto.input[3]) if optional(proto, 3) else None
        steps = b.ints(proto.input[4]) if optional(proto, 4) else None
    axes = [axis % len(shape) for axis in (axes if axes is not None else range(len(starts)))]
    bounds = [(0, n, 1) for n in shape]
    backwards = {}
    for i, axis in enumerate(axes):
        step = steps[i] if steps else 1
        begin, end, _ = slice(starts[i], ends[i], step).indices(shape[axis])
        if step < 1:
            backwards[axis] = list(range(begin, end, step))
        else:
            bounds[axis] = (begin, max(begin, end), step)
    if not all(backwards.values()):
        raise Unsupported  # nothing is left
    x, name = b.values[proto.input[0]], proto.input[0]
    if name in b.constants and x.dtype == torch.int64 and not backwards:
        b.fold(proto.output[0], x[tuple(slice(*bound) for bound in bounds)])
        return
    for axis, places in backwards.items():  # a slice that runs backwards is a list of places
        index = f"{proto.output[0]}^places{axis}"
        b.fold(index, torch.tensor(places))
        name = b.emit("Gather", (name, index), f"{proto.output[0]}^{axis}", axis=axis)
    first, last, every = zip(*bounds, strict=True)
    b.emit("Slice", (name,), proto.output[0], starts=first, ends=last, steps=every)


@operator("Split")
def _split(b: Building, proto: Any, a: dict[str, Any]) -> None:
    shape = shape_of(b, proto.input[0])
    axis = int(a.get("axis", 0)) % len(shape)
    parts = len(proto.output)
    even = math.ceil(shape[axis] / parts)
    sizes = tuple(a["split"]) if "split" in a else b.ints(proto.input[1]) if optional(proto, 1) else None
    sizes = sizes or tuple(min(even, shape[axis] - i * even) for i in range(parts))
    start = 0
    for size, output in zip(sizes, proto.output, strict=True):
        starts, ends = [0] * len(shape), list(shape)
        starts[axis], ends[axis] = start, start + size
        b.emit("Slice", (proto.input[0],), output, starts=tuple(starts), ends=tuple(ends), steps=(1,) * len(shape))
        start += size


@operator("Gather")
def _gather(b: Building, proto: Any, a: dict[str, Any]) -> None:
    x = b.values[proto.input[0]]
    axis = int(a.get("axis", 0)) % max(x.dim(), 1)
    index = b.constant(proto.input[1]) if proto.input[0] not in b.constants else b.values[proto.input[1]]
    if proto.input[0] in b.constants and proto.input[1] in b.constants and x.dtype == torch.int64:
        flat = x.index_select(axis, index.reshape(-1) % x.shape[axis])
        b.fold(proto.output[0], flat.reshape((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])))
        return
    b.emit("Gather", (proto.input[0], proto.input[1]), proto.output[0], axis=axis)


@operator("Pad")
def _pad(b: Building, proto: Any, a: dict[str, Any]) -> None:
    dims = b.values[proto.input[0]].dim()
    given = tuple(a["pads"]) if "pads" in a else b.ints(proto.input[1])
    value = a.get("value", 0.0)
    if optional(proto, 2):
        value = b.constant(proto.input[2]).item()
    axes = b.ints(proto.input[3]) if optional(proto, 3) else tuple(range(dims))
    before, after = [0] * dims, [0] * dims
    for i, axis in enumerate(axes):
        before[axis % dims], after[axis % dims] = given[i], given[i + len(axes)]
    mode = {b"constant": "constant", b"reflect": "reflect", b"edge": "replicate"}.get(a.get("mode", b"constant"))
    if mode is None or min(*before, *after) < 0:
        raise Unsupported
    pads = (*before, *after)
    b.emit("Pad", (proto.input[0],), proto.output[0], pads=pads, mode=mode, value=float(value))


@operator("Tile")
def _tile(b: Building, proto: Any, a: dict[str, Any]) -> None:
    last, repeats = proto.input[0], b.ints(proto.input[1])
    wanted = [(axis, n) for axis, n in enumerate(repeats) if n != 1]
    if any(n < 1 or n > 4_096 for _, n in wanted):
        raise Unsupported
    for axis, n in wanted:
        last = b.emit("Concat", (last,) * n, f"{proto.output[0]}^{axis}", axis=axis)
    b.emit("Identity", (last,), proto.output[0])


@operator("SpaceToDepth", "DepthToSpace")
def _blocks(b: Building, proto: Any, a: dict[str, Any]) -> None:
    """ONNX puts the place in a block before the channel (DCR); torch behind it (CRD)."""
    x, output, block = proto.input[0], proto.output[0], int(a["blocksize"])
    n, c, h, w = b.values[x].shape
    if proto.op_type == "SpaceToDepth" and a.get("mode", b"DCR") == b"CRD":
        b.emit("SpaceToDepth", (x,), output, block=block)
        return
    if proto.op_type == "SpaceToDepth":
        split, perm = (n, c, h // block, block, w // block, block), (0, 3, 5, 1, 2, 4)
        final = (n, c * block * block, h // block, w // block)
    elif a.get("mode", b"DCR") == b"CRD":
        b.emit("DepthToSpace", (x,), output, block=block)
        return
    else:
        split, perm = (n, block, block, c // block**2, h, w), (0, 3, 4, 1, 5, 2)
        final = (n, c // block**2, h * block, w * block)
    apart = b.emit("Reshape", (x,), f"{output}^split", shape=split)
    turned = b.emit("Transpose", (apart,), f"{output}^turned", perm=perm)
    b.emit("Reshape", (turned,), output, shape=final)


# Resizing -----------------------------------------------------------------------------------------------------------


@operator("Resize")
def _resize(b: Building, proto: Any, a: dict[str, Any]) -> None:
    shape = tuple(b.values[proto.input[0]].shape)
    size: tuple[int, ...]
    if len(proto.input) > 3 and proto.input[3]:
        size = b.ints(proto.input[3])
    else:
        factors = b.constant(proto.input[2]).double().tolist()
        if len(factors) != len(shape) or any(n * f != round(n * f) for n, f in zip(shape, factors, strict=True)):
            raise Unsupported  # where a size is rounded, ONNX's places follow the factor and torch's the size
        size = tuple(round(n * f) for n, f in zip(shape, factors, strict=True))
    mode = a.get("mode", b"nearest")
    where = a.get("coordinate_transformation_mode", b"half_pixel")
    if len(size) != len(shape) or size[:2] != shape[:2] or a.get("axes"):
        raise Unsupported
    wider = all(m >= n for n, m in zip(shape[2:], size[2:], strict=True))
    if a.get("antialias", 0) and not (wider and mode == b"linear"):
        raise Unsupported  # a larger picture needs no filter
    whole = all(m % n == 0 for n, m in zip(shape[2:], size[2:], strict=True))
    if mode == b"linear" and where == b"pytorch_half_pixel" and 1 in size[2:]:
        raise Unsupported
    if mode == b"linear" and where in (b"half_pixel", b"pytorch_half_pixel", b"align_corners"):
        aligned = where == b"align_corners"
        b.emit("ResizeLinear", (proto.input[0],), proto.output[0], size=size[2:], align_corners=aligned)
    elif mode == b"cubic" and where in _CUBIC and _as_torch(a):
        aligned = where == b"align_corners"
        b.emit("ResizeCubic", (proto.input[0],), proto.output[0], size=size[2:], align_corners=aligned)
    elif mode == b"nearest" and whole and _copies(where, a.get("nearest_mode", b"round_prefer_floor")):
        copies = tuple(m // n for n, m in zip(shape[2:], size[2:], strict=True))
        b.emit("ResizeNearest", (proto.input[0],), proto.output[0], factors=copies)
    else:
        raise Unsupported


_CUBIC = (b"half_pixel", b"pytorch_half_pixel", b"align_corners")


def _as_torch(a: dict[str, Any]) -> bool:
    """Whether the cubic curve is torch's, and the border repeated as there."""
    return math.isclose(a.get("cubic_coeff_a", -0.75), -0.75) and not a.get("exclude_outside", 0)


def _copies(where: bytes, rounding: bytes) -> bool:
    """Whether each value is copied into a block: by whole factors the centre of a pixel is never between two."""
    if where in (b"half_pixel", b"pytorch_half_pixel", b"half_pixel_symmetric"):
        return rounding in (b"round_prefer_floor", b"round_prefer_ceil")
    return where == b"asymmetric" and rounding == b"floor"
