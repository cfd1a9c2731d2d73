"""An ONNX file: float, QCDQ or QONNX, of any exporter. What may be in it, and the network that it holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from torch import Tensor

from contest.errors import RefusedError, UsageError
from scoring.costs import MAX_FACTS
from scoring.graph.graph import Graph, Subject
from scoring.graph.interpreter import example_images, run_graph
from scoring.readers.onnx_graph import graph_of

MAX_BYTES = 256 * 2**20
MAX_NODES = 20_000
MAX_ELEMENTS = 200_000_000
MAX_RANK = 8
MAX_NAME = 500

NEWEST = onnx.defs.onnx_opset_version()
STANDARD = ("", "ai.onnx")
QONNX = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")
RUNTIME = ("com.microsoft",)
"""Operators that ONNX Runtime adds where it optimises or quantises; those that are known are taken apart."""
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
    image = _image_input(model.graph, image_shape)
    _check_output(model.graph, image.name)
    example = example_images(image.shape, 1).to(image.dtype)
    graph = graph_of(model, image.name, example, image.channels_last)
    claims = {key: _number(value) for key, value in _metadata(model, CLAIM_KEY).items()}
    for key, value in _metadata(model, BITS_KEY).items():
        _declare(graph, key, value)
    provenance = _provenance(_metadata(model, PROVENANCE_KEY))
    if all(node.domain not in QONNX for node in model.graph.node):
        engine, max_batch = _session(model.SerializeToString(), image), 1 if image.alone else None
    else:
        engine, max_batch = _interpreted(graph, image)
    return Subject(graph, engine, image.shape, claims=claims, provenance=provenance, max_batch=max_batch)


class _Image(NamedTuple):
    """What the network takes: images [N,C,H,W] in [0, 1], or [N,H,W,C] as TensorFlow's exporters leave them.

    alone: the file says one image at a time.
    """

    name: str
    shape: tuple[int, int, int]
    dtype: torch.dtype
    channels_last: bool
    alone: bool


def _image_input(graph: Any, wanted: tuple[int, int, int] | None) -> _Image:
    """wanted: sizes of the images, where the network takes any."""
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    if len(inputs) != 1 or len(inputs[0].type.tensor_type.shape.dim) != 4:
        raise RefusedError("the network must have one input, images [N,C,H,W]")
    tensor = inputs[0].type.tensor_type
    batch, *dims = tensor.shape.dim
    fixed = batch.dim_value if batch.HasField("dim_value") else 0
    if fixed > 1:
        raise RefusedError(f"the network takes {fixed} images at a time; export it with one, or any number")
    shape = _sizes([d.dim_value for d in dims], wanted)
    last = _channels_last(shape)
    shape = (shape[2], *shape[:2]) if last else shape
    if min(shape) < 1 or math.prod(shape) > MAX_IMAGE:
        sizes = ", ".join(str(size) if size > 0 else "?" for size in shape)
        raise RefusedError(
            f"the network's input is [N, {sizes}]; three sizes are needed: let the batch alone be dynamic"
        )
    dtype = _TYPES.get(tensor.elem_type)
    if dtype is None:
        raise RefusedError(
            "the network's input must be a float image [N,C,H,W] in [0, 1]; export the part behind the division by 255"
        )
    return _Image(inputs[0].name, shape, dtype, last, bool(fixed))


def _check_output(graph: Any, image: str) -> None:
    if not graph.output:
        raise RefusedError("the network has 0 outputs; one is needed, the logits")
    if len(graph.output) > 1:
        names = ", ".join(f"'{output.name[:100]}'" for output in graph.output)
        raise RefusedError(
            f"the network has {len(graph.output)} outputs ({names}); one is needed, the logits: return them "
            f"alone, or cut off the rest: python -c \"import onnx; onnx.utils.extract_model('FILE', 'logits.onnx', "
            f"['{image[:100]}'], ['{graph.output[0].name[:100]}'])\""
        )


def _sizes(declared: Sequence[int], wanted: tuple[int, int, int] | None) -> tuple[int, int, int]:
    """Channels, height and width as declared; where the network takes any, as wanted."""
    free = wanted is not None and all(have in (0, want) for have, want in zip(declared, wanted, strict=True))
    first, second, third = wanted if free and wanted is not None else declared
    return first, second, third


def _channels_last(shape: tuple[int, int, int]) -> bool:
    """Whether an input is [N, H, W, C]: one or three channels at the end, and not where torch has them."""
    return shape[2] in (1, 3) and shape[0] not in (1, 3)


def _metadata(model: Any, start: str) -> dict[str, str]:
    """Entries whose key begins so, by the rest of the key."""
    return {p.key.removeprefix(start): p.value for p in model.metadata_props if p.key.startswith(start)}


def _declare(graph: Graph, name: str, text: str) -> None:
    """Bits of an integer tensor, narrower than its type; the analysis holds the codes against them."""
    if name not in graph.stored or not text.isdigit() or not 1 <= int(text) <= 8:
        raise RefusedError(f"the file declares '{text[:20]}' bits for '{name[:200]}', which it does not store as codes")
    graph.stored[name] = int(text)


def _provenance(found: dict[str, str]) -> dict[str, str]:
    """What the file says of its making; as much of it as a manifest may."""
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


def _interpreted(graph: Graph, image: _Image) -> tuple[Callable[[Tensor], Tensor], int | None]:
    """(an engine for what no runtime runs, its largest batch: 1 where images together get other logits than alone)."""

    def run(images: Tensor) -> Tensor:
        return run_graph(graph, images)[graph.output]

    if not image.alone:
        return run, None
    images = example_images(image.shape, 3)
    try:
        together = run(images)
    except RuntimeError:
        return run, 1
    alone = torch.cat([run(one[None]) for one in images])
    return run, None if torch.allclose(together, alone, rtol=1e-4, atol=1e-4) else 1


def _session(content: bytes, image: _Image) -> Callable[[Tensor], Tensor]:
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
        given = images.permute(0, 2, 3, 1).contiguous() if image.channels_last else images
        return torch.from_numpy(session.run(None, {image.name: given.to(image.dtype).numpy()})[0])

    return run


# What may be in a file ----------------------------------------------------------------------------------------------


def load_checked(path: Path) -> Any:
    """The `ModelProto` of a file within all limits. Raises RefusedError, naming what is wrong."""
    if not path.is_file():
        raise UsageError(f"{path} is not a file")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise RefusedError(f"{path.name} has {size:,} bytes; the limit is {MAX_BYTES:,}")
    try:
        model = onnx.ModelProto.FromString(path.read_bytes())
    except (DecodeError, ValueError, RecursionError) as error:
        raise RefusedError(f"{path.name} is not an ONNX file: {str(error)[:200]}") from error
    if not model.HasField("graph") or not model.graph.node:
        raise RefusedError(f"{path.name} holds no graph")
    if len(model.functions) or len(model.training_info):
        raise RefusedError(f"{path.name} defines functions or training graphs; only plain operators are accepted")
    _check_domains(model)
    _check_graph(model.graph)
    _sort(model.graph)
    try:
        onnx.checker.check_model(model, full_check=False)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        text = " ".join(str(error).split())[:300]
        if "Unrecognized attribute: axis for operator" in text:  # ONNX Runtime's quantiser writes this into any opset
            text += "; scales per channel need opset 13: export with opset_version=13 or more, then quantise again"
        raise RefusedError(f"{path.name} is not valid ONNX: {text}") from error
    return model


def _check_domains(model: Any) -> None:
    """What nodes use is judged; imports that no node needs (ONNX Runtime writes ten) say nothing."""
    for imported in model.opset_import:
        if imported.domain in STANDARD and not 7 <= imported.version <= NEWEST:
            raise RefusedError(f"operator set {imported.version} is not supported; 7 to {NEWEST} are")
    for node in model.graph.node:
        if node.domain not in (*STANDARD, *QONNX, *RUNTIME):
            raise RefusedError(
                f"operator '{node.op_type[:MAX_NAME]}' is of domain '{node.domain[:MAX_NAME]}', which is not accepted"
            )


def _check_graph(graph: Any) -> None:
    if len(graph.node) > MAX_NODES:
        raise RefusedError(f"the graph has {len(graph.node):,} nodes; the limit is {MAX_NODES:,}")
    if len(graph.sparse_initializer):
        raise RefusedError("sparse initialisers are not accepted; store the weights densely")
    elements = 0
    for tensor in graph.initializer:
        elements += check_tensor(tensor)
    names = [tensor.name for tensor in graph.initializer]
    if len(set(names)) != len(names):
        raise RefusedError("two initialisers have the same name")
    for node in graph.node:
        if len(node.name) > MAX_NAME or any(len(name) > MAX_NAME for name in (*node.input, *node.output)):
            raise RefusedError(f"a name in the graph has more than {MAX_NAME} characters")
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs:
                raise RefusedError(f"operator '{node.op_type}' holds a graph of its own; control flow is not accepted")
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors or attribute.tensors:
                raise RefusedError(f"operator '{node.op_type}' holds sparse or many tensors; that is not accepted")
            if attribute.HasField("t"):
                elements += check_tensor(attribute.t)
            if len(attribute.ints) + len(attribute.floats) + len(attribute.strings) > 1_000_000:
                raise RefusedError(f"attribute '{attribute.name[:MAX_NAME]}' of '{node.op_type}' is too long")
    if elements > MAX_ELEMENTS:
        raise RefusedError(f"the graph stores {elements:,} numbers; the limit is {MAX_ELEMENTS:,}")


def _sort(graph: Any) -> None:
    """Nodes in an order in which they can run: ONNX Runtime's own tools leave them in any. Cycles stay."""
    made = {name for node in graph.node for name in node.output if name}
    done: set[str] = set()
    nodes, sorted_already = list(graph.node), True
    for node in nodes:
        sorted_already &= not any(name in made and name not in done for name in node.input)
        done.update(node.output)
    if sorted_already:
        return
    readers: dict[str, list[int]] = {}
    missing = []
    for i, node in enumerate(nodes):
        needed = {name for name in node.input if name in made}
        missing.append(len(needed))
        for name in needed:
            readers.setdefault(name, []).append(i)
    order = [i for i, count in enumerate(missing) if not count]
    for i in order:
        for name in nodes[i].output:
            for reader in readers.get(name, ()):
                missing[reader] -= 1
                if not missing[reader]:
                    order.append(reader)
    copies = [onnx.NodeProto.FromString(nodes[i].SerializeToString()) for i in order]
    if len(copies) == len(nodes):
        del graph.node[:]
        graph.node.extend(copies)


def check_tensor(tensor: Any) -> int:
    """Elements of a stored tensor whose shape fits its bytes."""
    name = tensor.name[:MAX_NAME]
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        raise RefusedError(f"tensor '{name}' lies in another file; everything must be in the one file")
    if len(tensor.dims) > MAX_RANK or any(d < 0 or d > MAX_ELEMENTS for d in tensor.dims):
        raise RefusedError(f"tensor '{name}' has shape {list(tensor.dims)[: MAX_RANK + 1]}")
    count = math.prod(int(d) for d in tensor.dims)
    if count > MAX_ELEMENTS:
        raise RefusedError(f"tensor '{name}' has {count:,} elements; the limit is {MAX_ELEMENTS:,}")
    typed = sum(
        len(field)
        for field in (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)
    )
    if max(typed, len(tensor.raw_data)) * 8 < count * 4 and count:
        raise RefusedError(f"tensor '{name}' has {count:,} elements by its shape, but not in its data")
    return count
