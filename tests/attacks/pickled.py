"""Pickles written opcode by opcode: what `torch.save` would never write."""

from __future__ import annotations

import pickle

PROTOCOL = b"\x80\x02"


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + len(raw).to_bytes(4, "little") + raw


def plain(value: object) -> bytes:
    """Opcodes of any plain value."""
    return pickle.dumps(value, 2)[2:-1]


def name(module: str, attribute: str) -> bytes:
    return b"c" + f"{module}\n{attribute}\n".encode()


def of(*items: bytes) -> bytes:
    """A tuple."""
    return b"(" + b"".join(items) + b"t"


def mapping(**items: bytes) -> bytes:
    return b"}(" + b"".join(text(k) + v for k, v in items.items()) + b"u"


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + of(*arguments) + b"R"


def storage(kind: str = "FloatStorage", key: str = "0", device: str = "cpu", elements: int = 4) -> bytes:
    parts = (text("storage"), name("torch", kind), text(key), text(device), plain(elements))
    return of(*parts) + b"Q"


def tensor(
    size: tuple[object, ...] = (4,), stride: tuple[object, ...] = (1,), offset: int = 0, data: bytes | None = None
) -> bytes:
    """A dense tensor as torch writes it, if the numbers are right."""
    hooks = name("collections", "OrderedDict") + b")R"
    parts = (data or storage(), plain(offset), of(*map(plain, size)), of(*map(plain, stride)), b"\x89", hooks)
    return call(name("torch._utils", "_rebuild_tensor_v2"), *parts)


def root(**state: bytes) -> bytes:
    """The whole data.pkl of a model file with these values in its state."""
    items = mapping(
        format=text("contest-model"), version=plain(1), manifest=text("{}"), state=mapping(**state) if state else b"}"
    )
    return PROTOCOL + items + b"."


def holding(value: bytes) -> bytes:
    """The same with one value that is not a tensor."""
    return root(w=value)
