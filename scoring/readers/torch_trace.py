"""The torch reader: runs a module once and writes down every operation that PyTorch really dispatches.

It works below Python, so loops, hooks, shared layers and functional calls are all seen, and stored tensors are told
by identity. Composite operations that are not in the vocabulary are taken apart until they are; what is left over
is named as unknown, never dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from contest.errors import RefusedError
from scoring.analysis.activation_patterns import with_activations
from scoring.graph.graph import KINDS, NAMED_AFTER_WEIGHTS, UNKNOWN, Graph, Node, weight_name
from scoring.graph.interpreter import run_node
from scoring.readers import torch_functions, torch_moves, torch_quantisers  # noqa: F401  (they register)
from scoring.readers.quantiser_patterns import with_quantisers
from scoring.readers.torch_operators import IGNORED, TRANSLATIONS


def trace(
    model: nn.Module,
    image: Tensor,
    *,
    declared_bits: Mapping[str, int] | None = None,
    values: dict[str, Tensor] | None = None,
    prefix: str = "",
) -> Graph:
    """The operation graph of `model(image)`.

    Args:
        model: any module in evaluation mode; left as it is.
        image: [1,C,H,W] float, or several images to look at values; meta tensors cost no work.
        declared_bits: bits of integer tensors by state name, as the file declares them.
        values: filled with the tensor of every value, by name.
        prefix: left out of the names of layers and tensors.
    """
    recorder = Recorder(model, image, dict(declared_bits or {}), prefix)
    state = {n: t for n, t in model.state_dict(keep_vars=True).items() if isinstance(t, Tensor)}
    versions = {name: tensor._version for name, tensor in state.items()}
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.inference_mode(), _layer_names(model, recorder, prefix), recorder:
            output = model(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    for name, tensor in state.items():
        if tensor._version != versions.get(name):
            recorder.problems.append(f"'{name}' changes while the network runs")
    if values is not None:
        values.update({name: recorder.tensors[i] for i, name in recorder.names.items() if i in recorder.tensors})
    return recorder.graph(output)


@contextmanager
def _layer_names(model: nn.Module, recorder: Recorder, prefix: str) -> Iterator[None]:
    """While active, the recorder knows which submodule runs."""
    with ExitStack() as stack:
        for name, module in model.named_modules():

            def enter(_: nn.Module, __: Any, name: str = name.removeprefix(prefix)) -> None:
                recorder.path.append(name)

            def leave(*_: Any) -> None:
                recorder.path.pop()

            stack.callback(module.register_forward_pre_hook(enter, prepend=True).remove)
            stack.callback(module.register_forward_hook(leave).remove)
        yield


class Recorder(TorchDispatchMode):
    """Writes nodes while operations run. Translations call `emit` (new values) and `value` (names of tensors)."""

    def __init__(self, model: nn.Module, image: Tensor, declared_bits: Mapping[str, int], prefix: str) -> None:
        super().__init__()
        self.path: list[str] = []
        self.nodes: list[Node] = []
        self.producers: dict[str, Node] = {}
        self.names: dict[int, str] = {}
        self.tensors: dict[int, Tensor] = {}  # keeps them alive, so that no identity is used twice
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.types: dict[str, torch.dtype] = {}
        self.constants: dict[str, Tensor] = {}
        self.stored: dict[str, int | None] = {}
        self.problems: list[str] = []
        self.used: set[str] = set()
        self.stale: set[int] = set()
        self.aliases: dict[int, list[int]] = {}
        self.calls: Counter[str] = Counter()
        for full_name, tensor in (*model.named_parameters(), *model.named_buffers()):
            name = full_name.removeprefix(prefix)
            if id(tensor) not in self.names:
                self.stored[name] = declared_bits.get(full_name)
                self.constants[name] = tensor.detach()
                self._name(tensor, name)
        self.input = "image"
        self._name(image, self.input)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing here is compiled; saying so spares the import of torch._dynamo, which takes seconds."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        translation = TRANSLATIONS.get(func.overloadpacket._qualified_op_name)
        random = torch.Tag.nondeterministic_seeded in func.tags
        if translation is None and not random and func._can_decompose():
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        with _disable_current_modes():
            result = func(*args, **kwargs)
        if func.overloadpacket._qualified_op_name in IGNORED:
            return result
        inputs = [t for t in _flat(args, kwargs) if isinstance(t, Tensor)]
        outputs = [t for t in _flat((result,), {}) if isinstance(t, Tensor)]
        self._record(func, translation, args, kwargs, inputs, outputs, random)
        return result

    def _record(
        self,
        func: Any,
        translation: Any,
        args: Any,
        kwargs: Any,
        inputs: list[Tensor],
        outputs: list[Tensor],
        random: bool,
    ) -> None:
        stale = [t for t in inputs if id(t) in self.stale]
        self.used.update(name for t in inputs if (name := self.names.get(id(t))) in self.stored)
        names = [self.value(t) for t in inputs]
        constant = not random and all(name in self.constants for name in names)
        before = len(self.nodes)
        if stale or not outputs or translation is None or not translation(self, args, kwargs, outputs):
            del self.nodes[before:]
            operation = str(func.overloadpacket._qualified_op_name).replace("::", ".")
            kind = operation if constant and not stale else UNKNOWN
            outputs = [t for t in outputs if t is not None]
            self.node(kind, names, outputs, operation=operation, arguments=_plain(args, kwargs) if constant else "")
        for tensor in outputs:
            if tensor.is_quantized:
                self._requantised(tensor)
        if func._schema.is_mutable:
            self._mark_stale(outputs, inputs)

    def _requantised(self, tensor: Tensor) -> None:
        """What computes on a quantised tensor (a pool, a mean) rounds to the codes of its input again."""
        name = self.names[id(tensor)]
        maker = self.producers[name]
        exact = maker.kind in ("Quant", "Relu", "Clip", UNKNOWN) or KINDS[maker.kind].keeps_grid
        if exact or name in self.constants:
            return
        inner = f"{name}^real"
        self.shapes[inner], self.types[inner] = self.shapes[name], self.types[name]
        self.nodes[self.nodes.index(maker)] = self.producers[inner] = replace(maker, outputs=(inner,))
        torch_quantisers.requantised(self, inner, tensor)

    def _mark_stale(self, outputs: list[Tensor], inputs: list[Tensor]) -> None:
        """After a change in place, other views of the same memory hold values that the graph does not know."""
        for tensor in outputs:
            for other in self.aliases.get(tensor.untyped_storage()._cdata, []):
                if other != id(tensor):
                    self.stale.add(other)

    # What translations use --------------------------------------------------------------------------------------

    def value(self, item: Any) -> str:
        """The name of a tensor's value, or of a Python number as a constant."""
        if item is None:
            return ""
        if not isinstance(item, Tensor):
            raise TypeError(f"{item!r} is not a tensor")
        if id(item) not in self.names:
            name = f"constant{len(self.constants)}"  # made outside of the module: a literal in its code
            self._name(item, name)
            self.constants[name] = item.detach()
        return self.names[id(item)]

    def number(self, number: float, like: Tensor) -> str:
        """A number written in the code is a constant of the type that it is computed in."""
        dtype = like.dtype
        name = f"{number!r}:{dtype}"
        if name not in self.constants:
            self.constants[name] = torch.tensor(number, dtype=dtype)
            self.shapes[name], self.types[name] = (), dtype
        return name

    def layer(self) -> str:
        """The name of the module that runs."""
        return self.path[-1] if self.path else ""

    def store(self, tensor: Tensor, name: str) -> str:
        """Name a tensor that a module stores where `state_dict` does not show it."""
        if name in self.stored:
            return name  # the layer runs a second time
        self._name(tensor, name)
        self.constants[name] = tensor
        self.stored[name] = None
        self.used.add(name)
        return name

    def real(self, tensor: Tensor) -> bool:
        """From now on this integer tensor stands for the real value of its codes. Returns True."""
        name = self.names[id(tensor)]
        self.types[name] = torch.float32
        if name in self.constants:
            node = self.producers[name]
            self.constants[name] = run_node(node, [self.constants[i] for i in node.inputs])
        return True

    def node(self, kind: str, inputs: list[str], outputs: list[Tensor], **attributes: Any) -> bool:
        """Record an operation with these output tensors."""
        constant = kind != UNKNOWN and all(name in self.constants for name in inputs if name)
        names = []
        for tensor in outputs:
            name = f"%{len(self.shapes)}"
            self._name(tensor, name)
            names.append(name)
            if constant:
                self.constants[name] = tensor.dequantize() if tensor.is_quantized else tensor.detach()
        self.nodes.append(Node(self._layer(kind, inputs, constant), kind, tuple(inputs), tuple(names), attributes))
        self.producers.update(dict.fromkeys(names, self.nodes[-1]))
        return True

    def hidden(
        self, kind: str, inputs: list[str], size: tuple[int, ...], dtype: torch.dtype, /, **attributes: Any
    ) -> str:
        """Record an operation inside of a fused one, whose value nobody sees. Returns the value's name."""
        name = f"%{len(self.shapes)}"
        self.shapes[name], self.types[name] = size, dtype
        self.nodes.append(Node(self._layer(kind, inputs, False), kind, tuple(inputs), (name,), attributes))
        return name

    def _layer(self, kind: str, inputs: list[str], constant: bool) -> str:
        path = self.path[-1] if self.path else ""
        if not constant and kind in NAMED_AFTER_WEIGHTS:
            path = weight_name(inputs[1], self.stored, self.producers) or path
        else:
            self.calls[f"{path}/{kind}"] += 1
            return f"{path}/{kind}" + (f"_{n}" if (n := self.calls[f"{path}/{kind}"]) > 1 else "")
        self.calls[path] += 1
        return path + (f":{self.calls[path]}" if self.calls[path] > 1 else "")

    def _name(self, tensor: Tensor, name: str) -> None:
        self.names[id(tensor)] = name
        self.tensors[id(tensor)] = tensor
        self.shapes[name] = tuple(tensor.shape)
        self.types[name] = torch.float32 if tensor.is_quantized else tensor.dtype
        self.stale.discard(id(tensor))
        if tensor.layout == torch.strided:
            self.aliases.setdefault(tensor.untyped_storage()._cdata, []).append(id(tensor))

    def graph(self, output: Any) -> Graph:
        logits = logits_among(output)
        if logits is not output:
            self.problems.append(
                "the network returns several things, of which one is taken as its logits; what the others alone need "
                "is not priced: let `forward` return the logits [N, classes] alone in evaluation mode"
            )
        unused = [n for n in self.stored if n not in self.used and not _is_bookkeeping(n)]
        graph = Graph(
            nodes=self.nodes,
            input=self.input,
            output=self.value(logits),
            shapes=self.shapes,
            types=self.types,
            constants=self.constants,
            stored=self.stored,
            unused=tuple(unused),
            problems=tuple(self.problems),
        )
        return with_activations(with_quantisers(graph))


def logits_among(output: Any) -> Tensor:
    """What a network returns; of several things the one called `logits`, or the first of [N, classes].

    Raises RefusedError where no tensor is among them.
    """
    if isinstance(output, Tensor):
        return output
    kind = type(output).__name__
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(named, Tensor):
        return named
    if not isinstance(output, Mapping | list | tuple):
        output = getattr(output, "__dict__", {})
    parts = output.values() if isinstance(output, Mapping) else output
    tensors = [t for t in _flat(tuple(parts), {}) if isinstance(t, Tensor)]
    if not tensors:
        raise RefusedError(f"the network returns a {kind}; it must return logits [N, classes]")
    return next((t for t in tensors if t.dim() == 2), tensors[0])


def _is_bookkeeping(name: str) -> bool:
    """Counters of batch norms, and what observers of quantisation keep beside their step."""
    return name.endswith(("num_batches_tracked", ".weight_axis", ".axis")) or "activation_post_process" in name


def _flat(args: Any, kwargs: Mapping[str, Any]) -> Iterator[Any]:
    for item in (*args, *kwargs.values()):
        if isinstance(item, (list, tuple)):
            yield from _flat(item, {})
        else:
            yield item


def _plain(args: Any, kwargs: Mapping[str, Any]) -> str:
    """Arguments that are not tensors, as text: part of what a constant expression is."""
    return repr([a for a in _flat(args, kwargs) if not isinstance(a, Tensor)])
