"""Malformed and hostile files by name: what they are called, how they are made, and what the refusal must say.

Each maker is cheap and deterministic; `test_hostile_files.py` opens every one the way the isolated child does, and
(slow) through the isolated child itself.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.attacks import makers, pickled
from tests.attacks.makers import header_bytes, quantised, torch_bytes, torch_with_pickle, with_manifest, zip_bytes


@dataclass(frozen=True)
class Hostile:
    """A file to be refused. message: a regular expression that the refusal must match."""

    make: Callable[[], bytes]
    message: str
    name: str = "model.pt"


CASES: dict[str, Hostile] = {}


def case(label: str, make: Callable[[], bytes], message: str, name: str = "model.pt") -> None:
    """Register one file."""
    assert label not in CASES, label
    CASES[label] = Hostile(make, message, name)


def honest() -> bytes:
    return torch_bytes(quantised())


# What is no model file at all

case("empty file", lambda: b"", "empty")
case("one byte", lambda: b"\x00", "none of .pt")
case("text", lambda: b"dear organiser, here is my network", "none of .pt")
case("Git LFS pointer", lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS")
case("web page", lambda: b"<!DOCTYPE html><title>404</title>", "web page")
case("program", lambda: b"\x7fELF" + bytes(100), "a program")
case("script", lambda: b"#!/bin/sh\nrm -rf ~\n", "a script")
case("gzip", lambda: gzip.compress(honest()), "gzip")
case("HDF5", lambda: b"\x89HDF\r\n\x1a\n" + bytes(64), "Keras or HDF5")
case("NumPy array", lambda: b"\x93NUMPY\x01\x00" + bytes(64), "NumPy")
case("TensorFlow Lite", lambda: b"\x1c\x00\x00\x00TFL3" + bytes(64), "TensorFlow Lite")
case("GGUF", lambda: b"GGUF" + bytes(64), "GGUF")
case(
    "pickle that runs os.system", lambda: makers.Calls("os", "system", "true").pickled(), "pickle.*without running code"
)
case("pickle of protocol 0", lambda: b"cos\nsystem\n(S'true'\ntR.", "pickle.*without running code")
case("ending of another format", honest, "holds torch.*rename", "model.onnx")
case("safetensors called pt", lambda: makers.safetensors_bytes(quantised()), "holds safetensors", "model.pt")
case("ending that nobody knows", honest, r"'\.pth' is none of", "model.pth")
case("name full of control characters", honest, "is none of", "\x1b[31mmodel\u202etp.exe")


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("../../evil")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"evil"))
    return buffer.getvalue()


def _legacy() -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2)}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


case("tar", _tar, "tar archive")
case("torch's format before 1.6", _legacy, "pickle")

# Zip archives


def _entries() -> dict[str, bytes]:
    return makers.entries_of(honest())


def _raw_twice() -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as archive:
        warnings.simplefilter("ignore")
        for name, data in _entries().items():
            archive.writestr(zipfile.ZipInfo(name), data)
        archive.writestr(zipfile.ZipInfo(next(iter(_entries()))), b"another")
    return buffer.getvalue()


def _patched(old: bytes, new: bytes, which: int = -1) -> bytes:
    """The honest archive with one occurrence of some bytes (counted from either end) replaced."""
    data = zip_bytes(_entries())
    places = [i for i in range(len(data)) if data.startswith(old, i)]
    at = places[which]
    return data[:at] + new + data[at + len(new) :]


def _central_flag(offset: int, value: int) -> bytes:
    """The honest archive with a 16-bit field of its last central header changed."""
    data = bytearray(zip_bytes(_entries()))
    at = data.rindex(b"PK\x01\x02")
    data[at + offset : at + offset + 2] = value.to_bytes(2, "little")
    return bytes(data)


def _overlapping() -> bytes:
    """The last entry's directory record points at the first entry's data: every reader would read it twice."""
    data = bytearray(zip_bytes({"a/data/0": b"0000", "a/data/1": b"1111"}))
    last = data.rindex(b"PK\x01\x02")
    data[last + 42 : last + 46] = (0).to_bytes(4, "little")
    data[last + 46 : last + 54] = b"a/data/0"
    return bytes(data)


def _miscounted() -> bytes:
    data = bytearray(zip_bytes(_entries()))
    data[data.rindex(b"PK\x05\x06") + 8] += 1
    return bytes(data)


def _with_comment() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.comment = b"hidden"
        archive.writestr(zipfile.ZipInfo("a/data.pkl"), b"N.")
    return buffer.getvalue()


def _link() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("a/data.pkl")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    return buffer.getvalue()


def _many_entries() -> bytes:
    return zip_bytes({f"a/data/{i}": b"" for i in range(10_050)})


case("zip cut in half", lambda: honest()[: len(honest()) // 2], "cut off")
case("zip without its last byte", lambda: honest()[:-1], "cut off")
case("zip with something behind it", lambda: honest() + b"#!/bin/sh", "cut off, or something follows")
case("zip with something before it", lambda: b"PK\x03\x04" + bytes(60) + honest(), "zip archive")
case(
    "zip bomb",
    lambda: zip_bytes({"a/data.pkl": b"N.", "a/data/0": bytes(50_000_000)}, zipfile.ZIP_DEFLATED),
    "compressed",
)
case("zip in a zip", lambda: zip_bytes({"a/inner.zip": honest()}), "no torch file has")
case("entry twice", _raw_twice, "twice")
case("encrypted entry", lambda: _central_flag(8, 1), "encrypted")
case("unknown compression", lambda: _central_flag(10, 99), "compressed")
case("entry that leads up", lambda: zip_bytes({"a/../../evil": b"x"}), "leads elsewhere")
case("entry with an absolute path", lambda: zip_bytes({"/etc/passwd": b"x"}), "leads elsewhere")
case("entry with a backslash", lambda: zip_bytes({"a/data\\..\\evil": b"x"}), "leads elsewhere")
case("entry with a line break", lambda: zip_bytes({"a/data\n.pkl": b"x"}), "leads elsewhere")
case("link in a zip", _link, "a link")
case("two top folders", lambda: zip_bytes({"a/data.pkl": b"N.", "b/data/0": b"x"}), "no torch file has")
case("too many entries", _many_entries, "entries; the limit")
case("zip comment", _with_comment, "something follows")
case("entry with two names", lambda: _patched(b"byteorder", b"bytehidden"[:9], 0), "two ways")
case("overlapping entries", _overlapping, "twice|overlaps")
case("directory that counts wrongly", _miscounted, "several parts")
case(
    "TorchScript",
    lambda: zip_bytes({"m/data.pkl": b"N.", "m/code/__torch__.py": b"", "m/constants.pkl": b""}),
    "TorchScript.*contest score",
)
case(
    "torch.export (.pt2)",
    lambda: zip_bytes({"m/archive_format": b"pt2", "m/models/model.json": b"{}"}),
    "torch.export.*contest score",
)
case("Keras", lambda: zip_bytes({"config.json": b"{}", "model.weights.h5": b""}), "Keras.*tf2onnx")
case("NumPy archive", lambda: zip_bytes({"w.npy": b"\x93NUMPY"}), "npz.*contest convert")
case("no data.pkl", lambda: zip_bytes({"a/version": b"3"}), "no data.pkl")
case("data.pkl of 9 MB", lambda: torch_with_pickle(pickled.PROTOCOL + b"N" * 9_000_000 + b"."), "data.pkl has")
case("big-endian", lambda: zip_bytes({"a/data.pkl": b"N.", "a/byteorder": b"big"}), "little-endian")
case("huge version record", lambda: zip_bytes({"a/data.pkl": b"N.", "a/version": bytes(10_000)}), "larger than")
case("data that no tensor uses", lambda: zip_bytes({**_entries(), _entry_top() + "data/999": b"a table"}), "hides data")
case(
    "storage cut short",
    lambda: zip_bytes({k: v[:-1] if k.endswith("data/0") else v for k, v in _entries().items()}),
    "should have",
)
case(
    "storage missing",
    lambda: zip_bytes({k: v for k, v in _entries().items() if not k.endswith("data/0")}),
    "not in the archive",
)


def _entry_top() -> str:
    return next(iter(_entries())).partition("/")[0] + "/"


# Pickles inside of a zip


def pickle_case(label: str, data: Callable[[], bytes], message: str, floats: int = 4) -> None:
    case(label, lambda: torch_with_pickle(data(), {"archive/data/0": bytes(4 * floats)}), message)


def _imports(module: str, attribute: str, *arguments: bytes) -> Callable[[], bytes]:
    return lambda: pickled.holding(pickled.call(pickled.name(module, attribute), *arguments))


for _module, _attribute in (
    ("os", "system"),
    ("posix", "system"),
    ("subprocess", "Popen"),
    ("builtins", "exec"),
    ("builtins", "eval"),
    ("builtins", "__import__"),
    ("builtins", "getattr"),
    ("numpy", "load"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("torch.hub", "load"),
    ("torch", "load"),
    ("torch.jit", "load"),
    ("runpy", "run_path"),
    ("ctypes", "CDLL"),
    ("__main__", "Net"),
    ("__builtin__", "compile"),
    ("pickle", "loads"),
    ("shutil", "rmtree"),
):
    pickle_case(
        f"pickle imports {_module}.{_attribute}",
        _imports(_module, _attribute, pickled.text("true")),
        "without running code",
    )

pickle_case("bytearray of a terabyte", _imports("builtins", "bytearray", pickled.plain(10**12)), "bytearray")
pickle_case("set, complex and codecs", _imports("_codecs", "encode", pickled.text("x")), "_codecs.encode")
pickle_case(
    "STACK_GLOBAL", lambda: b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.", "uses 'PROTO'|STACK_GLOBAL"
)
pickle_case("INST", lambda: pickled.PROTOCOL + b"(X\x04\x00\x00\x00trueios\nsystem\n.", "uses 'INST'")
pickle_case("OBJ", lambda: pickled.PROTOCOL + b"(cos\nsystem\nX\x04\x00\x00\x00trueo.", "without running code")
pickle_case("BUILD", lambda: pickled.PROTOCOL + b"}}b.", "uses 'BUILD'")
pickle_case(
    "NEWOBJ", lambda: pickled.PROTOCOL + pickled.name("collections", "OrderedDict") + b")\x81.", "uses 'NEWOBJ'"
)
pickle_case("extension registry", lambda: pickled.PROTOCOL + b"\x82\x01.", "uses 'EXT1'")
pickle_case("call of a call", lambda: pickled.holding(pickled.tensor() + b")R"), "calls 'a value'")
pickle_case("persistent id by text", lambda: pickled.PROTOCOL + b"Pstorage\n.", "uses 'PERSID'")
pickle_case(
    "nested persistent ids",
    lambda: pickled.holding(pickled.tensor(data=pickled.of(pickled.storage()) + b"Q")),
    "not a storage",
)
pickle_case(
    "persistent id of something else",
    lambda: pickled.holding(pickled.text("file:///etc/passwd") + b"Q"),
    "not a storage",
)
pickle_case(
    "100,000 nested lists", lambda: pickled.PROTOCOL + b"]" * 100_000 + b"a" * 99_999 + b".", "not a model file"
)
pickle_case("list that holds itself", lambda: pickled.PROTOCOL + b"]q\x00h\x00a.", "not a model file")
pickle_case(
    "billion laughs",
    lambda: pickled.PROTOCOL + b")" + b"q\x00h\x00h\x00\x86" * 5_000 + b".",
    "damaged|not a model file",
)
pickle_case(
    "number of two gigabytes", lambda: pickled.PROTOCOL + b"\x8b\xff\xff\xff\x7f" + bytes(10) + b".", "damaged|LONG4"
)
pickle_case("text of two gigabytes", lambda: pickled.PROTOCOL + b"X\xff\xff\xff\x7fabc.", "damaged")
pickle_case("text of 16 exabytes", lambda: pickled.PROTOCOL + b"\x8d" + b"\xff" * 7 + b"\x0fabc.", "damaged")
pickle_case("memo of four billion", lambda: pickled.PROTOCOL + b"Nr\xff\xff\xff\xff.", "not a model file")
pickle_case("no STOP", lambda: pickled.PROTOCOL + b"}", "damaged")
pickle_case("stack underflow", lambda: pickled.PROTOCOL + b"R.", "damaged")
pickle_case("mark that is missing", lambda: pickled.PROTOCOL + b"u.", "damaged")
pickle_case("two values", lambda: pickled.PROTOCOL + b"NN.", "damaged")
pickle_case("name that is no UTF-8", lambda: pickled.PROTOCOL + b"X\x02\x00\x00\x00\xff\xfe.", "damaged")
pickle_case("key that is a number", lambda: pickled.PROTOCOL + b"}K\x01K\x02s.", "key that is not text")
pickle_case(
    "tensor name twice", lambda: pickled.PROTOCOL + b"}(" + 2 * (pickled.text("w") + b"N") + b"u.", "in the file twice"
)
pickle_case("future protocol", lambda: b"\x80\x63N.", "uses 'PROTO'")
pickle_case(
    "state dictionary of a network",
    lambda: pickled.PROTOCOL + pickled.mapping(w=pickled.tensor()) + b".",
    "not a model file of this project.*contest convert",
)

# Tensors that are not what they seem

pickle_case("overlapping strides", lambda: pickled.holding(pickled.tensor((10**5, 4), (0, 1))), "view of other data")
pickle_case("stride of zero over a giant shape", lambda: pickled.holding(pickled.tensor((2**62,), (0,))), "too large")
pickle_case("negative stride", lambda: pickled.holding(pickled.tensor((4,), (-1,))), "view of other data")
pickle_case("negative offset", lambda: pickled.holding(pickled.tensor(offset=-2)), "view of other data")
pickle_case("offset beyond the storage", lambda: pickled.holding(pickled.tensor(offset=1000)), "view of other data")
pickle_case("negative size", lambda: pickled.holding(pickled.tensor((-4,))), "not a list of sizes")
pickle_case("size that is a truth value", lambda: pickled.holding(pickled.tensor((True,))), "not a list of sizes")
pickle_case("size that is a float", lambda: pickled.holding(pickled.tensor((4.0,))), "not a list of sizes")
pickle_case(
    "product of sizes that overflows", lambda: pickled.holding(pickled.tensor((2**40, 2**40), (2**40, 1))), "too large"
)
pickle_case("forty dimensions", lambda: pickled.holding(pickled.tensor((1,) * 40, (1,) * 40)), "40 dimensions")
pickle_case("more sizes than strides", lambda: pickled.holding(pickled.tensor((2, 2), (1,))), "not a dense tensor")
pickle_case("storage smaller than its tensor", lambda: pickled.holding(pickled.tensor((1000,))), "view of other data")
pickle_case("storage larger than its tensor", lambda: pickled.holding(pickled.tensor((2,))), "view of other data")
pickle_case(
    "storage that says 10^15",
    lambda: pickled.holding(pickled.tensor(data=pickled.storage(elements=10**15))),
    "view of other data|should have",
)
pickle_case(
    "storage on a GPU", lambda: pickled.holding(pickled.tensor(data=pickled.storage(device="cuda:0"))), "device"
)
pickle_case("storage on meta", lambda: pickled.holding(pickled.tensor(data=pickled.storage(device="meta"))), "device")
pickle_case(
    "storage of quantised numbers",
    lambda: pickled.holding(pickled.tensor(data=pickled.storage("QInt8Storage"))),
    "QInt8Storage",
)
pickle_case(
    "two tensors in one storage", lambda: pickled.root(v=pickled.tensor(), w=pickled.tensor()), "share one storage"
)
pickle_case(
    "storage that is a path",
    lambda: pickled.holding(pickled.tensor(data=pickled.storage(key="../../x"))),
    "not in the archive",
)


def state_case(label: str, value: Callable[[], Any], message: str, name: str = "fc.bias") -> None:
    def make() -> bytes:
        content = quantised()
        content["state"][name] = value()
        return torch_bytes(content)

    case(label, make, message)


class Subclass(Tensor):
    """A tensor with behaviour of its own."""


def _sparse_csr() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.eye(4).to_sparse_csr()


state_case("sparse tensor", lambda: torch.eye(4).to_sparse(), "not a dense tensor")
state_case("compressed sparse tensor", _sparse_csr, "not a dense tensor")
state_case("meta tensor", lambda: torch.empty(10, device="meta"), "not a dense tensor")
state_case("tensor subclass", lambda: torch.ones(10).as_subclass(Subclass), "not a dense tensor|running code")
state_case("parameter", lambda: nn.Parameter(torch.ones(10)), "not a dense tensor")
state_case("float64", lambda: torch.ones(10, dtype=torch.float64), "float64")
state_case("int64", lambda: torch.ones(10, dtype=torch.int64), "int64")
state_case("complex", lambda: torch.ones(10, dtype=torch.complex64), "complex64")
state_case("bool", lambda: torch.ones(10, dtype=torch.bool), "bool")
state_case("transposed", lambda: torch.ones(10, 6).t(), "view of other data", "fc.codes")
state_case("view of a larger table", lambda: torch.ones(5000)[:10], "view of other data")
state_case("expanded", lambda: torch.ones(1).expand(10), "view of other data")
state_case("conjugated", lambda: torch.ones(10, dtype=torch.complex64).conj(), "not a dense tensor")
state_case("negated", lambda: torch._neg_view(torch.ones(10)), "not a dense tensor")
state_case("zero-size dimension", lambda: torch.ones(10, 0), "empty")
state_case("list for a tensor", lambda: [0.0] * 10, "not a dense tensor")
state_case("text for a tensor", lambda: "x" * 100, "not a dense tensor")
state_case("dictionary in the state", lambda: {"more": torch.ones(3)}, "not a dense tensor")
state_case("NaN", lambda: torch.full((10,), float("nan")), "NaN")
state_case("infinity", lambda: torch.full((10,), float("inf")), "NaN or inf")
state_case("hidden table", lambda: torch.ones(512), "used by nothing", "table")
state_case("wrong shape", lambda: torch.ones(11), "the network needs")
state_case("wrong type", lambda: torch.ones(10, dtype=torch.float16), "the network needs")
state_case("unprintable tensor name", lambda: torch.ones(3), "printable", "fc\u202e\x1b[2J")
state_case("tensor name of 10,000 letters", lambda: torch.ones(3), "1 to 300", "x" * 10_000)


def _whole_module() -> bytes:
    buffer = io.BytesIO()
    torch.save(nn.Linear(3, 2), buffer)
    return buffer.getvalue()


def _tampered(key: str, value: Any) -> Callable[[], bytes]:
    return lambda: torch_bytes({**quantised(), key: value})


case("whole pickled module", _whole_module, "[Ww]hole pickled modules.*contest convert")
case("manifest that is a number", _tampered("manifest", 7), "manifest must be text")
case("state that is a list", _tampered("state", []), "state tensors by name")
case("more keys", lambda: torch_bytes({**quantised(), "code": "import os"}), "not a model file of this project")
case("unknown format", _tampered("format", "other"), "format 'other'")
case("future version", _tampered("version", 2), "version '2'")

# Manifests


def manifest_case(label: str, change: Callable[[dict[str, Any]], Any], message: str, name: str = "model.pt") -> None:
    def make() -> bytes:
        content = with_manifest(quantised(), lambda m: change(m) and None)
        return makers.safetensors_bytes(content) if name.endswith("s") else torch_bytes(content)

    case(label, make, message, name)


def text_case(label: str, text: Callable[[], str], message: str) -> None:
    case(label, lambda: torch_bytes({**quantised(), "manifest": text()}), message)


text_case("manifest that is no JSON", lambda: "{", "manifest is not valid")
text_case("manifest nested 100,000 deep", lambda: "[" * 100_000 + "]" * 100_000, "manifest is not valid")
text_case("manifest of 3 MB", lambda: json.dumps({"x": "a" * 3_000_000}), "the limit")
text_case("manifest with a lone surrogate", lambda: '{"architecture": "\\ud800"}', "manifest is not valid")
manifest_case("unknown field", lambda m: m.update(hook="os.system"), "hook")
manifest_case("unknown family", lambda m: m["architecture"].update(family="transformer9"), "cannot be built")
manifest_case("family with a path", lambda m: m["architecture"].update(family="../../x"), "architecture.family")
manifest_case(
    "family from a hub", lambda m: m["architecture"].update(family="timm/hf-hub:evil/model"), "architecture.family"
)
manifest_case("option that is an object", lambda m: m["architecture"]["options"].update(widths={"a": 1}), "widths")
manifest_case(
    "width of nine million", lambda m: m["architecture"]["options"].update(widths=[9_000_000, 6]), "cannot be built"
)
manifest_case("depth of a billion", lambda m: m["architecture"]["options"].update(depths=[10**9, 1]), "cannot be built")
manifest_case("negative width", lambda m: m["architecture"]["options"].update(widths=[-4, 6]), "cannot be built")
manifest_case("images of a terabyte", lambda m: m.update(image_shape=[16_384] * 3), ".")
manifest_case("no classes", lambda m: m.update(classes=0), "classes")
manifest_case(
    "fewer logits than classes",
    lambda m: m.update(classes=11),
    "the manifest says 11 classes, but the network gives 10 logits",
)
manifest_case("a billion classes", lambda m: m.update(classes=10**9), "classes")
manifest_case("number as text", lambda m: m["layers"]["fc"].update(outputs="10"), "outputs")
manifest_case("truth value as number", lambda m: m["layers"]["fc"].update(outputs=True), "outputs")
manifest_case("claim that is infinite", lambda m: m.update(claims={"accuracy": 1e999}), "accuracy|not valid")
manifest_case("accuracy of 200 %", lambda m: m.update(claims={"accuracy": 2.0}), "accuracy")
manifest_case("nine bits", lambda m: m["layers"]["fc"].update(weight_bits=9), "weight_bits")
manifest_case("minus one bit", lambda m: m["layers"]["fc"].update(weight_bits=-1), "weight_bits")
manifest_case("kernel of 10^6", lambda m: m["layers"]["stem.conv"].update(kernel=[10**6, 1]), "kernel")
manifest_case("layer that is not there", lambda m: m["layers"].update(ghost=m["layers"]["fc"]), "'ghost'")
manifest_case(
    "layer named like an attribute", lambda m: m["layers"].update({"__class__": m["layers"]["fc"]}), "__class__"
)
manifest_case("groups that do not divide", lambda m: m["layers"]["stem.conv"].update(groups=2), "groups")
manifest_case(
    "5,000 layers", lambda m: m["layers"].update({f"l{i}": m["layers"]["fc"] for i in range(5_000)}), "layers"
)
manifest_case("provenance of a megabyte", lambda m: m.update(provenance={"note": "x" * 1_000_000}), "provenance")
manifest_case(
    "wrong manifest in safetensors",
    lambda m: m["layers"]["fc"].update(outputs=11),
    "the network needs|fc",
    "model.safetensors",
)

# Safetensors

META = {"__metadata__": {"format": "contest-model", "version": "1", "manifest": "{}"}}


def header_case(
    label: str, header: Callable[[], Any], message: str, data: bytes = b"", length: int | None = None
) -> None:
    case(label, lambda: header_bytes(header(), data, length), message, "model.safetensors")


def _entry(shape: Any = (4,), offsets: Any = (0, 16), dtype: Any = "F32", name: str = "w") -> dict[str, Any]:
    return {**META, name: {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def _two(first: tuple[int, int], second: tuple[int, int]) -> dict[str, Any]:
    return {**_entry(offsets=first), "v": {"dtype": "F32", "shape": [4], "data_offsets": second}}


header_case("header of 2^63 bytes", lambda: {}, "the limit is", length=2**63)
header_case("header of a gigabyte", lambda: {}, "the limit is", length=10**9)
header_case("header longer than the file", lambda: {}, "in all", length=5_000)
header_case("header that is no JSON", lambda: b'{"w":', "not valid JSON")
header_case("header that is no UTF-8", lambda: b'{"\xff": 1}', "not valid JSON")
header_case("header nested 200,000 deep", lambda: b'{"a":' + b"[" * 200_000, "nested")
header_case("header with a name twice", lambda: b'{"w": 1, "w": 2}', "twice")
header_case("header with a number of 5,000 digits", lambda: b'{"w": ' + b"9" * 5_000 + b"}", "not valid JSON")
header_case("header with NaN", lambda: b'{"w": NaN}', "not a number of JSON|not valid")
header_case("no manifest", lambda: {}, "no manifest")
header_case("metadata that is not text", lambda: {"__metadata__": {"manifest": 3}}, "must be text")
header_case("metadata that is a list", lambda: {"__metadata__": []}, "must be text")
header_case("tensor described by a list", lambda: {**META, "w": [1, 2]}, "not described")
header_case("tensor without offsets", lambda: {**META, "w": {"dtype": "F32", "shape": [1]}}, "not described")
header_case("overlapping tensors", lambda: _two((0, 16), (8, 24)), "overlaps", bytes(24))
header_case("gap between tensors", lambda: _two((0, 16), (32, 48)), "gap", bytes(48))
header_case("tensors beyond the end", _entry, "and the file", bytes(8))
header_case("bytes behind the tensors", _entry, "and the file", bytes(4_000))
header_case("offsets that run backwards", lambda: _entry(offsets=(16, 0)), "its offsets", bytes(16))
header_case("negative offsets", lambda: _entry(offsets=(-16, 0)), "its offsets", bytes(16))
header_case("offsets of floats", lambda: _entry(offsets=(0.0, 16.0)), "its offsets", bytes(16))
header_case("shape that overflows", lambda: _entry(shape=[2**40, 2**40]), "too large", bytes(16))
header_case("shape of 2^63", lambda: _entry(shape=[2**63]), "too large", bytes(16))
header_case("negative shape", lambda: _entry(shape=[-1, -4]), "not a list of sizes", bytes(16))
header_case("shape of a float", lambda: _entry(shape=[4.0]), "not a list of sizes", bytes(16))
header_case("shape that is text", lambda: _entry(shape="4"), "not lists", bytes(16))
header_case("zero in the shape", lambda: _entry(shape=[0], offsets=(0, 0)), "empty")
header_case("type nobody knows", lambda: _entry(dtype="F1"), "F1", bytes(16))
header_case("type that is a list", lambda: _entry(dtype=["F32"]), "holds I8", bytes(16))
header_case("double precision", lambda: _entry(dtype="F64", offsets=(0, 32)), "F64", bytes(32))
header_case("name that turns text around", lambda: _entry(name="w\u202egnp"), "printable", bytes(16))
header_case("name that is empty", lambda: _entry(name=""), "1 to 300", bytes(16))
header_case("10,001 tensors", lambda: {**META, **{f"t{i}": 0 for i in range(10_001)}}, "10,001 tensors")
case("length alone", lambda: struct.pack("<Q", 0) + b"{", "not valid JSON|in its metadata", "model.safetensors")


def _nan_weights() -> bytes:
    content = quantised()
    content["state"]["fc.bias"] = torch.full((10,), float("nan"))
    return makers.safetensors_bytes(content)


case("NaN in safetensors", _nan_weights, "NaN", "model.safetensors")
