"""What a translation of one operation may ask of the reader that calls it, for torch and for ONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from scoring.graph.graph import Node


class Recording(Protocol):
    """The torch reader, as `scoring.readers.torch_operators` sees it: tensors that are there already get names."""

    constants: dict[str, Tensor]

    producers: dict[str, Node]

    def value(self, item: Any) -> str:
        """The name of a tensor's value."""

    def layer(self) -> str:
        """The name of the module that runs."""

    def store(self, tensor: Tensor, name: str) -> str:
        """Name a tensor that a module stores where `state_dict` does not show it."""

    def real(self, tensor: Tensor) -> bool:
        """From now on this integer tensor stands for the real value of its codes. Returns True."""

    def number(self, number: float, like: Tensor) -> str:
        """The name of a number written in the code, of the type that it is computed in."""

    def node(self, kind: str, inputs: list[str], outputs: list[Tensor], **attributes: Any) -> bool:
        """Record an operation with these output tensors."""

    def hidden(self, kind: str, inputs: list[str], size: tuple[int, ...], dtype: Any, /, **attributes: Any) -> str:
        """Record an operation inside of a fused one, whose value nobody sees."""


TorchTranslation = Callable[[Recording, Sequence[Any], dict[str, Any], list[Tensor]], bool]
"""(recorder, arguments, keyword arguments, output tensors) -> whether this use of the operation is known."""


@dataclass(frozen=True)
class Codes:
    """What the integer codes of a value are: step and zero point (names; no zero point is ""), and their range."""

    scale: str
    zero: str
    low: int
    high: int


class Building(Protocol):
    """The ONNX reader, as `scoring.readers.onnx_operators` sees it: values are computed as they come."""

    values: dict[str, Tensor]
    constants: dict[str, Tensor]
    stored: dict[str, int | None]
    producers: dict[str, Node]
    codes: dict[str, Codes]
    """Quantised activations, kept as the values that their codes stand for."""
    current: Any
    """The ONNX node that is translated."""

    def store(self, name: str, proto: Any) -> None:
        """A stored tensor."""

    def emit(self, kind: str, inputs: tuple[str, ...], output: str, **attributes: Any) -> str:
        """Record a node and run it on the example image. Returns the output's name."""

    def fold(self, output: str, value: Tensor) -> None:
        """A constant that no stored tensor holds."""

    def constant(self, name: str) -> Tensor:
        """The value of an input that must be constant."""

    def integer_range(self, name: str) -> tuple[int, int]:
        """The smallest and the largest number of a stored tensor's integer type."""

    def number(self, number: float, like: str) -> str:
        """The name of a number written in an attribute, of the type of a value."""

    def narrow(self, x: str, output: str, low: float | None, high: float | None) -> None:
        """Clip of a quantised activation's codes: the quantiser has fewer."""

    def ints(self, name: str) -> tuple[int, ...]:
        """A constant vector of integers."""


OnnxTranslation = Callable[[Building, Any, dict[str, Any]], None]
"""(builder, node, attributes); raises `Unsupported` for a use that the contest does not know."""
