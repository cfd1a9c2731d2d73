"""What the pickle inside of a `model.pt` says, found by a machine that can build nothing but plain data.

torch's own reader (`weights_only=True`) stays the defence. This one comes before it to learn names, types and shapes
before memory is taken, and it accepts less: one way to write a dense tensor, no other callable. So a file that it
passes holds numbers that cannot take more memory than the file has bytes.
"""

from __future__ import annotations

import math
import pickletools
from dataclasses import dataclass, field
from typing import Any

from contest.errors import RefusedError
from contest.untrusted.description import CONVERT, MAX_PICKLE_STEPS, TensorInfo, check_shape, shown

REBUILD = "torch._utils._rebuild_tensor_v2"
ORDERED = "collections.OrderedDict"
STORAGES = {
    "torch.FloatStorage": ("float32", 4),
    "torch.HalfStorage": ("float16", 2),
    "torch.CharStorage": ("int8", 1),
    # known, so that the message can name them; not stored by any model file
    "torch.DoubleStorage": ("float64", 8),
    "torch.BFloat16Storage": ("bfloat16", 2),
    "torch.LongStorage": ("int64", 8),
    "torch.IntStorage": ("int32", 4),
    "torch.ShortStorage": ("int16", 2),
    "torch.ByteStorage": ("uint8", 1),
    "torch.BoolStorage": ("bool", 1),
    "torch.ComplexFloatStorage": ("complex64", 8),
    "torch.ComplexDoubleStorage": ("complex128", 16),
}
STORED = ("int8", "float32", "float16")
_PUSH = {
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "BINFLOAT",
}
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class Global:
    """A name that the pickle asks to import. Nothing is imported."""

    name: str


@dataclass(frozen=True)
class Storage:
    """A block of numbers that the pickle refers to by key."""

    key: str
    dtype: str
    elements: int
    size_bytes: int


@dataclass
class Interpreted:
    """The pickle's value, tensors as `TensorInfo`, and the storages that they use."""

    content: Any = None
    storages: dict[str, Storage] = field(default_factory=dict)


def interpret(pickle: bytes) -> Interpreted:
    """Run a pickle of plain data and dense tensors. Raises RefusedError for everything else."""
    machine = _Machine()
    try:
        for steps, (opcode, argument, _) in enumerate(pickletools.genops(pickle)):
            if steps > MAX_PICKLE_STEPS:
                raise RefusedError(f"data.pkl takes more than {MAX_PICKLE_STEPS:,} steps")
            machine.step(opcode.name, argument)
    except (ValueError, IndexError, KeyError, OverflowError, UnicodeError, TypeError) as error:
        raise RefusedError(f"data.pkl is damaged: {shown(str(error))}") from error
    if machine.stack or not machine.stopped:
        raise RefusedError("data.pkl is damaged: it does not end with one value")
    return machine.result


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.result = Interpreted()
        self.stopped = False

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _PUSH:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            stack.append(tuple(self._take(_TUPLES[name])))
        elif name == "TUPLE":
            stack.append(tuple(self._to_mark()))
        elif name in ("EMPTY_DICT", "EMPTY_LIST"):
            stack.append({} if name == "EMPTY_DICT" else [])
        elif name == "MARK":
            self.marks.append(len(stack))
        elif name in ("SETITEM", "SETITEMS"):
            self._set(self._to_mark() if name == "SETITEMS" else self._take(2))
        elif name in ("APPEND", "APPENDS"):
            items = self._to_mark() if name == "APPENDS" else self._take(1)
            self._top(list).extend(items)
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self._top(object)
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "GLOBAL":
            stack.append(_allowed(str(argument).replace(" ", ".")))
        elif name == "BINPERSID":
            stack.append(self._storage(*self._take(1)))
        elif name == "REDUCE":
            stack.append(self._call(*self._take(2)))
        elif name == "STOP":
            (self.result.content,) = self._take(1)
            self.stopped = True
        elif name != "PROTO" or argument != 2:
            raise RefusedError(
                f"data.pkl uses '{name}', which a model file does not need; it opens without running code"
            )

    def _top(self, kind: type[Any]) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0) or not isinstance(self.stack[-1], kind):
            raise ValueError("a value of another kind was expected")
        return self.stack[-1]

    def _take(self, count: int) -> list[Any]:
        floor = self.marks[-1] if self.marks else 0
        if len(self.stack) - count < floor:
            raise ValueError("it takes values that are not there")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def _to_mark(self) -> list[Any]:
        if not self.marks:
            raise ValueError("it takes values that are not there")
        mark = self.marks.pop()
        taken = self.stack[mark:]
        del self.stack[mark:]
        return taken

    def _set(self, items: list[Any]) -> None:
        target = self._top(dict)
        if len(items) % 2:
            raise ValueError("a key has no value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str):
                raise RefusedError(f"data.pkl has a key that is not text: {shown(repr(type(key).__name__))}")
            if key in target:
                raise RefusedError(f"'{shown(key)}' stands in the file twice")
            if isinstance(value, Global | Storage):
                raise RefusedError(f"'{shown(key)}' is not a dense tensor")
            target[key] = self._named(key, value)

    @staticmethod
    def _named(name: str, value: Any) -> Any:
        """Tensors are checked where their name is known."""
        if not isinstance(value, _Tensor):
            return value
        shape = check_shape(name, value.size)
        storage, label = value.storage, shown(name)
        if storage.dtype not in STORED:
            raise RefusedError(f"tensor '{label}' is {storage.dtype}; a model file holds int8, float32 and float16")
        dense, step = True, 1
        for size, stride in zip(shape[::-1], value.stride[::-1], strict=True):
            dense &= size == 1 or stride == step
            step *= size
        if not dense or value.offset != 0 or storage.elements != math.prod(shape):
            raise RefusedError(f"tensor '{label}' is a view of other data; tensors must stand alone")
        return TensorInfo(storage.dtype, shape)

    def _storage(self, reference: Any) -> Storage:
        match reference:
            case ("storage", Global(name=kind), str(key), "cpu", int(elements)) if (
                kind in STORAGES and type(elements) is int and elements >= 0
            ):
                dtype, width = STORAGES[kind]
            case ("storage", Global(), str(), str(device), int()) if device != "cpu":
                raise RefusedError(f"a tensor lies on device '{shown(device)}'; save it from the cpu")
            case _:
                raise RefusedError("data.pkl refers to something that is not a storage of numbers")
        storage = Storage(key, dtype, elements, elements * width)
        if key in self.result.storages:
            raise RefusedError("two tensors share one storage: each is a view of other data; tensors must stand alone")
        self.result.storages[key] = storage
        return storage

    def _call(self, function: Any, arguments: Any) -> Any:
        name = function.name if isinstance(function, Global) else "a value"
        if name == ORDERED and arguments == ():
            return {}
        if name != REBUILD or not isinstance(arguments, tuple) or len(arguments) not in (6, 7):
            raise RefusedError(f"data.pkl calls '{shown(name)}' in a way that no dense tensor needs")
        storage, offset, size, stride, gradient, hooks = arguments[:6]
        sizes = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride)
        plain = isinstance(storage, Storage) and type(offset) is int and type(gradient) is bool
        if not sizes or not plain or hooks or arguments[6:] not in ((), (None,)):
            raise RefusedError("data.pkl describes something that is not a dense tensor")
        return _Tensor(storage, offset, size, stride)


@dataclass(frozen=True)
class _Tensor:
    storage: Storage
    offset: int
    size: tuple[Any, ...]
    stride: tuple[Any, ...]


def _allowed(name: str) -> Global:
    if name in STORAGES or name in (REBUILD, ORDERED):
        return Global(name)
    label = shown(name)
    if name.startswith(("torch._utils._rebuild", "torch._tensor.", "torch.nn.parameter.")):
        raise RefusedError(f"it holds something that is not a dense tensor ('{label}'); save plain tensors")
    raise RefusedError(
        f"it is not a model file that opens without running code: it asks to import '{label}'. Checkpoints and whole "
        f"pickled modules are refused; {CONVERT}"
    )
