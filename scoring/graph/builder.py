"""What a translation of one operation may ask of the reader that calls it, for torch and for ONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor


class Recording(Protocol):
    """The torch reader, as `scoring.readers.torch_operators` sees it: tensors that are there already get names."""

    constants: dict[str, Tensor]

    def value(self, item: Any) -> str:
        """The name of a tensor's value."""

    def number(self, number: float, like: Tensor) -> str:
        """The name of a number written in the code, of the type that it is computed in."""

    def node(self, kind: str, inputs: list[str], outputs: list[Tensor], **attributes: Any) -> bool:
        """Record an operation with these output tensors."""

    def hidden(self, kind: str, inputs: list[str], size: tuple[int, ...], dtype: Any, /, **attributes: Any) -> str:
        """Record an operation inside of a fused one, whose value nobody sees."""


TorchTranslation = Callable[[Recording, Sequence[Any], dict[str, Any], list[Tensor]], bool]
"""(recorder, arguments, keyword arguments, output tensors) -> whether this use of the operation is known."""


class Building(Protocol):
    """The ONNX reader, as `scoring.readers.onnx_operators` sees it: values are computed as they come."""

    values: dict[str, Tensor]
    constants: dict[str, Tensor]
    stored: dict[str, int | None]

    def store(self, name: str, proto: Any) -> None:
        """A stored tensor."""

    def emit(self, kind: str, inputs: tuple[str, ...], output: str, **attributes: Any) -> str:
        """Record a node and run it on the example image. Returns the output's name."""

    def fold(self, output: str, value: Tensor) -> None:
        """A constant that no stored tensor holds."""

    def constant(self, name: str) -> Tensor:
        """The value of an input that must be constant."""

    def ints(self, name: str) -> tuple[int, ...]:
        """A constant vector of integers."""


OnnxTranslation = Callable[[Building, Any, dict[str, Any]], None]
"""(builder, node, attributes); raises `Unsupported` for a use that the contest does not know."""
