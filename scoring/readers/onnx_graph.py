"""The ONNX reader: float, QCDQ and QONNX files, as written by torch, Brevitas, or `contest convert`.

Nodes are translated one after the other and run on one example image as they come, which gives every shape and
folds the shape arithmetic that exporters leave behind. Nothing is trusted that was not computed here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from contest.errors import RefusedError
from scoring.graph.graph import NAMED_AFTER_WEIGHTS, UNKNOWN, Codes, Graph, Node, weight_name
from scoring.graph.interpreter import run_graph, run_node
from scoring.graph.kinds import SHAPE_KINDS
from scoring.readers.onnx_functions import QONNX, load_checked
from scoring.readers.onnx_operators import OPERATORS, Unsupported
from scoring.readers.onnx_runtime_operators import fused
from scoring.readers.subject import Subject, as_logits, before_the_choice, example_images
from scoring.verification.examination import MAX_FACTS

MAX_IMAGE = 4_000_000
"""Numbers in one image."""
BITS_KEY = "contest.bits."
CLAIM_KEY = "contest.claim."
PROVENANCE_KEY = "contest.provenance."
MAX_KEY = 200
"""Characters in the name of a fact."""
_TYPES = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
}


def read_onnx(path: Path, image_shape: tuple[int, int, int] | None = None) -> Subject:
    """An ONNX file. Raises RefusedError for what is malformed or cannot be followed.

    image_shape: of the images that it is to run on, for a network that was exported for images of any size.
    """
    model = load_checked(path)
    source = _image_input(model.graph)
    dims = source.type.tensor_type.shape.dim
    fixed = dims[0].dim_value if dims[0].HasField("dim_value") else 0
    if fixed > 1:
        raise RefusedError(f"the network takes {fixed} images at a time; export it with one, or any number")
    shape = _sizes([d.dim_value for d in dims[1:]], image_shape)
    last = _channels_last(shape)  # as TensorFlow's exporters leave them
    shape = (shape[2], *shape[:2]) if last else shape
    if min(shape) < 1 or math.prod(shape) > MAX_IMAGE:
        sizes = ", ".join(str(size) if size > 0 else "?" for size in shape)
        raise RefusedError(
            f"the network's input is [N, {sizes}]; three sizes are needed: let the batch alone be dynamic"
        )
    dtype = _TYPES.get(source.type.tensor_type.elem_type)
    if dtype is None:
        raise RefusedError(
            "the network's input must be a float image [N,C,H,W] in [0, 1]; export the part behind the division by 255"
        )
    if not model.graph.output:
        raise RefusedError("the network has 0 outputs; one is needed, the logits")
    if len(model.graph.output) > 1:
        names = ", ".join(f"'{output.name[:100]}'" for output in model.graph.output)
        raise RefusedError(
            f"the network has {len(model.graph.output)} outputs ({names}); one is needed, the logits: return them "
            f"alone, or cut off the rest: python -c \"import onnx; onnx.utils.extract_model('FILE', 'logits.onnx', "
            f"['{source.name[:100]}'], ['{model.graph.output[0].name[:100]}'])\""
        )
    builder = Builder(model, source.name, example_images(shape, 1).to(dtype), last)
    graph = fused(before_the_choice(builder.graph(model.graph.output[0].name)))
    claims = {
        p.key.removeprefix(CLAIM_KEY): _number(p.value) for p in model.metadata_props if p.key.startswith(CLAIM_KEY)
    }
    for p in model.metadata_props:
        if p.key.startswith(BITS_KEY):
            _declare(graph, p.key.removeprefix(BITS_KEY), p.value)
    provenance = _provenance(model.metadata_props)
    custom = any(node.domain in QONNX for node in model.graph.node)
    run = _interpreted(graph) if custom else _session(model.SerializeToString(), source.name, dtype, last)
    classes = (graph.shapes[graph.output] or (0,))[-1]

    single = bool(fixed) and not (custom and _takes_many(run, shape))
    return Subject(
        graph,
        lambda images: as_logits(run(images), classes),
        shape,
        claims=claims,
        provenance=provenance,
        max_batch=1 if single else None,
    )


def _sizes(declared: Sequence[int], wanted: tuple[int, int, int] | None) -> tuple[int, int, int]:
    """Channels, height and width as declared; where the network takes any, as wanted."""
    free = wanted is not None and all(have in (0, want) for have, want in zip(declared, wanted, strict=True))
    first, second, third = wanted if free and wanted is not None else declared
    return first, second, third


def _channels_last(shape: tuple[int, int, int]) -> bool:
    """Whether an input is [N, H, W, C]: one or three channels at the end, and not where torch has them."""
    return shape[2] in (1, 3) and shape[0] not in (1, 3)


def _takes_many(run: Any, shape: tuple[int, int, int]) -> bool:
    """Whether a graph that was exported for one image gives several images what it gives each alone."""
    images = example_images(shape, 3)
    try:
        together = run(images)
    except RuntimeError:
        return False
    return torch.allclose(together, torch.cat([run(image[None]) for image in images]), rtol=1e-4, atol=1e-4)


def _declare(graph: Graph, name: str, text: str) -> None:
    """Bits of an integer tensor, narrower than its type; the analysis holds the codes against them."""
    if name not in graph.stored or not text.isdigit() or not 1 <= int(text) <= 8:
        raise RefusedError(f"the file declares '{text[:20]}' bits for '{name[:200]}', which it does not store as codes")
    graph.stored[name] = int(text)


def _provenance(properties: Any) -> dict[str, str]:
    """What the metadata says of the making; as much of it as a manifest may."""
    found = {p.key.removeprefix(PROVENANCE_KEY): p.value for p in properties if p.key.startswith(PROVENANCE_KEY)}
    if len(found) > MAX_FACTS or any(len(key) > MAX_KEY for key in found):
        raise RefusedError(
            f"the file's provenance has {len(found)} entries; at most {MAX_FACTS} with names of {MAX_KEY} characters "
            "are accepted"
        )
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise RefusedError(f"a claim in the file is '{text[:50]}', which is no number") from error


def _image_input(graph: Any) -> Any:
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    if len(inputs) != 1 or len(inputs[0].type.tensor_type.shape.dim) != 4:
        raise RefusedError("the network must have one input, images [N,C,H,W]")
    return inputs[0]


def _interpreted(graph: Graph) -> Any:
    def run(images: Tensor) -> Tensor:
        return run_graph(graph, images)[graph.output]

    return run


def _session(content: bytes, name: str, dtype: torch.dtype, last: bool = False) -> Any:
    """ONNX Runtime, made when it is needed. Only basic optimisations: fused integer kernels round differently."""
    session: Any = None

    def run(images: Tensor) -> Tensor:
        nonlocal session
        import onnxruntime

        if session is None:
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.log_severity_level = 3
            options.intra_op_num_threads = torch.get_num_threads()
            try:
                session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            except Exception as error:  # onnxruntime's own exceptions share no base class but this
                raise RefusedError(f"ONNX Runtime cannot load the network: {str(error)[:300]}") from error
        given = images.permute(0, 2, 3, 1).contiguous() if last else images
        return torch.from_numpy(session.run(None, {name: given.to(dtype).numpy()})[0])

    return run


class Builder:
    """Translates nodes. Translations in `onnx_operators` call `emit`, `constant` and `ints`."""

    def __init__(self, model: Any, image_name: str, image: Tensor, last: bool = False) -> None:
        self.model = model
        self.opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=17)
        self.nodes: list[Node] = []
        self.values: dict[str, Tensor] = {image_name: image}
        self.constants: dict[str, Tensor] = {}
        self.stored: dict[str, int | None] = {}
        self.used: set[str] = set()
        self.image_name = image_name
        self.producers: dict[str, Node] = {}
        self.calls: Counter[str] = Counter()
        self.codes: dict[str, Codes] = {}
        self.ranges: dict[str, tuple[int, int]] = {}
        """Of integer types that torch has not."""
        self.current: Any = None
        self.read = {name for node in model.graph.node for name in node.input} | {o.name for o in model.graph.output}
        if last:
            self.image_name = f"{image_name}^nchw"
            self.values = {self.image_name: image}
            self.current = onnx.helper.make_node("Transpose", [self.image_name], [image_name], "image")
            self.emit("Transpose", (self.image_name,), image_name, perm=(0, 2, 3, 1))
        for tensor in model.graph.initializer:
            self.store(tensor.name, tensor)

    def store(self, name: str, proto: Any) -> None:
        """A stored tensor, with the bits of its type where that is narrower than a byte."""
        array, bits = _array(proto)
        if proto.data_type in RANGES:
            self.ranges[name] = RANGES[proto.data_type]
        if name in self.values:
            raise RefusedError(f"'{name[:200]}' is defined twice")
        self.stored[name] = bits
        self.constants[name] = self.values[name] = array

    def graph(self, output: str) -> Graph:
        for proto in self.model.graph.node:
            self.current = proto
            self._translate(proto)
        if output not in self.values:
            raise RefusedError(f"output '{output[:200]}' is made by no operator")
        unused = tuple(name for name in self.stored if name not in self.used)
        shapes = {name: tuple(tensor.shape) for name, tensor in self.values.items()}
        types = {name: tensor.dtype for name, tensor in self.values.items()}
        return Graph(self.nodes, self.image_name, output, shapes, types, self.constants, self.stored, unused)

    def _translate(self, proto: Any) -> None:
        for name in proto.input:
            if name and name not in self.values:
                raise RefusedError(f"operator '{proto.op_type}' reads '{name[:200]}', which nothing has made yet")
            self.used.add(name)
        for name in proto.output:
            if name in self.values:
                raise RefusedError(f"'{name[:200]}' is made twice")
        self._check_codes(proto)
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute}
        while len(proto.output) > 1 and proto.output[-1] not in self.read:
            del proto.output[-1]  # indices of a pool, statistics of a normalisation: nobody reads them
        translate = OPERATORS.get(proto.op_type)
        before = len(self.nodes)
        try:
            if translate is None:
                raise Unsupported
            translate(self, proto, attributes)
        except Unsupported:
            del self.nodes[before:]
            self._unknown(proto)
        except (RuntimeError, IndexError, ValueError, TypeError, KeyError, AssertionError, OverflowError) as error:
            raise RefusedError(
                f"operator '{proto.op_type}' ('{proto.name[:200]}') cannot be carried out: "
                f"{' '.join(str(error).split())[:200]}"
            ) from error

    def _check_codes(self, proto: Any) -> None:
        """Integers of a quantised activation may be moved about, and turned into real numbers again."""
        reading = next((name for name in proto.input if name in self.codes), None)
        if reading is not None and not (proto.op_type in _ON_CODES or proto.op_type.startswith(("QLinear", "QGemm"))):
            raise RefusedError(
                f"operator '{proto.op_type}' ('{proto.name[:200]}') computes with the integer codes of a quantised "
                "activation; export in QDQ format (QuantizeLinear and DequantizeLinear around float operators)"
            )

    def _unknown(self, proto: Any) -> None:
        """Run an operator that the contest does not know by ONNX's reference implementation, and name it."""
        from onnx.reference import ReferenceEvaluator

        inputs = {name: self.values[name] for name in proto.input if name}
        constant = all(name in self.constants for name in inputs)
        try:
            session = ReferenceEvaluator(
                onnx.helper.make_model(
                    onnx.helper.make_graph(
                        [proto],
                        "one",
                        [onnx.helper.make_empty_tensor_value_info(n) for n in inputs],
                        [onnx.helper.make_empty_tensor_value_info(n) for n in proto.output if n],
                    ),
                    opset_imports=self.model.opset_import,
                )
            )
            results = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        except Exception as error:  # the reference implementation raises whatever its operator raises
            raise RefusedError(
                f"operator '{proto.op_type}' is not one that the contest knows, and cannot be carried out either"
            ) from error
        names = tuple(name for name in proto.output if name)
        for name, array in zip(names, results, strict=True):
            try:
                self.values[name] = torch.from_numpy(np.array(array))
            except TypeError as error:
                raise RefusedError(f"operator '{proto.op_type}' gives numbers of a type that is not known") from error
            if constant:
                self.constants[name] = self.values[name]
        kind = proto.op_type if constant else UNKNOWN
        self.nodes.append(Node(self.layer(proto.op_type, ()), kind, tuple(inputs), names, {"operation": proto.op_type}))

    # What translations use --------------------------------------------------------------------------------------

    def emit(self, kind: str, inputs: tuple[str, ...], output: str, **attributes: Any) -> str:
        """Record a node and run it on the example image. Returns the output's name."""
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        node = Node(self.layer(kind, inputs), kind, inputs, (output,), attributes)
        with torch.inference_mode():
            value = run_node(node, [self.values[i] if i else None for i in inputs])
        self.nodes.append(node)
        self.producers[output] = node
        self.values[output] = value
        if all(i in self.constants for i in inputs if i):
            self.constants[output] = value
        if inputs and inputs[0] in self.codes and (kind in SHAPE_KINDS - {"Concat", "Pad"} or kind == "MaxPool"):
            self.codes[output] = self.codes[inputs[0]]
        return output

    def number(self, number: float, like: str) -> str:
        """The name of a number written in an attribute, of the type of a value."""
        name = f"{number!r}:{self.values[like].dtype}"
        if name not in self.values:
            self.fold(name, torch.tensor(number, dtype=self.values[like].dtype))
        return name

    def narrow(self, x: str, output: str, low: float | None, high: float | None) -> None:
        """Clip of a quantised activation's codes: the quantiser has fewer."""
        codes, source = self.codes[x], self.producers.get(x)
        if source is None or source.kind != "Quant":
            raise Unsupported
        fewer = replace(
            codes,
            low=codes.low if low is None else max(codes.low, int(low)),
            high=codes.high if high is None else min(codes.high, int(high)),
        )
        self.emit("Quant", source.inputs, output, low=fewer.low, high=fewer.high, axis=source.attributes["axis"])
        self.codes[output] = fewer

    def integer_range(self, name: str) -> tuple[int, int]:
        """The smallest and the largest number of a stored tensor's integer type."""
        self.constant(name)
        bounds = torch.iinfo(self.values[name].dtype)
        return self.ranges.get(name, (bounds.min, bounds.max))

    def fold(self, output: str, value: Tensor) -> None:
        """A constant that no stored tensor holds: shapes, and what is computed from them."""
        self.values[output] = self.constants[output] = value

    def constant(self, name: str) -> Tensor:
        """The value of an input that must be constant."""
        if name not in self.constants:
            raise Unsupported
        return self.constants[name]

    def ints(self, name: str) -> tuple[int, ...]:
        """A constant vector of integers."""
        return tuple(int(v) for v in self.constant(name).reshape(-1).tolist())

    def layer(self, kind: str, inputs: tuple[str, ...]) -> str:
        """A layer is called after its weight, anything else after its node."""
        named = kind in NAMED_AFTER_WEIGHTS and len(inputs) > 1
        name = weight_name(inputs[1], self.stored, self.producers) if named else ""
        name = name or self.current.name or f"{self.current.op_type}({self.current.output[0]})"
        if kind in SHAPE_KINDS - {"Concat", "Pad"} and self.current.op_type not in ("Reshape", kind):
            return f"{name}/{kind}"  # a part of another operator, whose name it must not use up
        self.calls[name] += 1
        return name + (f":{self.calls[name]}" if self.calls[name] > 1 else "")


RANGES = {
    onnx.TensorProto.UINT16: (0, 65_535),
    onnx.TensorProto.INT16: (-32_768, 32_767),
    onnx.TensorProto.UINT4: (0, 15),
    onnx.TensorProto.INT4: (-8, 7),
    **{
        getattr(onnx.TensorProto, name): bounds
        for name, bounds in (("UINT2", (0, 3)), ("INT2", (-2, 1)))
        if hasattr(onnx.TensorProto, name)
    },
}
"""Integer types without one of torch's own, or that torch computes little with: kept in a wider one."""
_ON_CODES = (
    "DequantizeLinear",
    "Clip",
    "MaxPool",
    "GlobalMaxPool",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Slice",
    "Split",
    "Gather",
    "Expand",
    "Identity",
    "DepthToSpace",
    "SpaceToDepth",
    "Shape",
    "Dropout",
)


def _array(proto: Any) -> tuple[Tensor, int | None]:
    """A stored tensor, and the bits of its type where it is kept in a wider one."""
    kept: dict[int, tuple[Any, int]] = {
        kind: (np.int8 if low < 0 else np.uint8, (high - low + 1).bit_length() - 1) if high < 256 else (np.int32, 16)
        for kind, (low, high) in RANGES.items()
    }
    try:
        array = numpy_helper.to_array(proto)
        if proto.data_type in kept:
            dtype, bits = kept[proto.data_type]
            return torch.from_numpy(array.astype(dtype)), bits
        if proto.data_type == onnx.TensorProto.BFLOAT16:
            return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16), None
        if array.dtype.kind == "u" and array.dtype.itemsize > 1:
            return torch.from_numpy(array.astype(np.int64)), array.dtype.itemsize * 8
        return torch.from_numpy(np.array(array)), None
    except (ValueError, TypeError) as error:
        raise RefusedError(f"tensor '{proto.name[:200]}' cannot be read: {str(error)[:200]}") from error
