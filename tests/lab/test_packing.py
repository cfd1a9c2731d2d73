"""Bit-packed networks: exact inverses, sizes by arithmetic and against the score, refusals."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contest import networks, pruning
from contest.candidate import Bits
from contest.errors import RefusedError, UsageError
from contest.model_file import Network, freeze, load, packing, save
from scoring.analysis.weight_encoding import check_codes


@settings(max_examples=50, deadline=None)
@given(bits=st.integers(1, 8), values=st.lists(st.integers(0, 255), min_size=0, max_size=40))
def test_bits_are_a_binary_number_written_out(bits: int, values: list[int]) -> None:
    codes = [value % 2**bits for value in values]
    text = "".join(f"{code:0{bits}b}" for code in codes)
    text += "0" * (-len(text) % 8)
    expected = bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))
    packed = packing.pack_bits(np.array(codes, dtype=np.int64), bits)
    assert packed == expected
    assert packing.unpack_bits(packed, len(codes), bits).tolist() == codes


@pytest.mark.parametrize("bits", [1, 2, 3, 8])
@pytest.mark.parametrize("zeros", [False, True])
def test_tensors_come_back(bits: int, zeros: bool) -> None:
    torch.manual_seed(0)
    low, high = (-1, 1) if bits == 1 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    codes = torch.randint(low, high + 1, (5, 3, 3)).to(torch.int8)
    codes[codes == 0] = -1
    if zeros:
        codes[:2] = 0
    data = packing.packed_tensor(codes, bits)
    alive = int((codes != 0).sum())
    assert len(data) == -(-alive * bits // 8) + (-(-45 // 8) if zeros else 0)
    lowest = packing.lowest_code(codes)
    back = packing.unpacked_tensor(data, (5, 3, 3), torch.int8, masked=zeros, bits=bits, lowest=lowest)
    assert torch.equal(back, codes)
    with pytest.raises(RefusedError, match="needed"):
        packing.unpacked_tensor(data + b"x", (5, 3, 3), torch.int8, masked=zeros, bits=bits, lowest=lowest)


@settings(max_examples=300, deadline=None)
@given(st.data(), st.integers(1, 8))
def test_all_codes_that_the_rules_allow_come_back_and_no_others_are_taken(data: st.DataObject, bits: int) -> None:
    """The rules allow any 2^b consecutive nonzero integers (+4 at 3 bits), with zeros in a bitmask beside them."""
    codes = data.draw(st.lists(st.integers(-128, 127), min_size=1, max_size=40))
    tensor = torch.tensor(codes, dtype=torch.int8)
    alive = [code for code in codes if code]
    between = [code for code in range(min(alive), max(alive) + 1) if code] if alive else []
    assert (check_codes(tensor, bits, "w") is None) == (len(between) <= 2**bits)
    if len(between) > 2**bits:
        with pytest.raises(UsageError, match=rf"codes from {min(alive)} to {max(alive)} .* {bits} bits"):
            packing.packed_tensor(tensor, bits)
        return
    packed = packing.packed_tensor(tensor, bits)
    assert len(packed) == -(-len(alive) * bits // 8) + (-(-len(codes) // 8) if len(alive) < len(codes) else 0)
    back = packing.unpacked_tensor(
        packed, tensor.shape, torch.int8, masked=len(alive) < len(codes), bits=bits, lowest=packing.lowest_code(tensor)
    )
    assert back.tolist() == codes


@pytest.mark.parametrize("bits", range(1, 9))
def test_every_window_of_codes_comes_back(bits: int) -> None:
    for lowest in range(-128, 128):
        window = [c for c in range(lowest, min(127, lowest + 2**bits) + 1) if c][: 2**bits]
        codes = torch.tensor(window, dtype=torch.int8)
        data = packing.packed_tensor(codes, bits)
        least = packing.lowest_code(codes)
        back = packing.unpacked_tensor(data, codes.shape, torch.int8, masked=False, bits=bits, lowest=least)
        assert back.tolist() == window


def test_codes_of_older_files_are_two_s_complement() -> None:
    data = packing.pack_bits(np.array([-4, -1, 3, 1]), 3)
    assert packing.unpacked_tensor(data, (4,), torch.int8, masked=False, bits=3).tolist() == [-4, -1, 3, 1]
    data = packing.pack_bits(np.array([0, 1, 1]), 1)
    assert packing.unpacked_tensor(data, (3,), torch.int8, masked=False, bits=1).tolist() == [-1, 1, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_floats_come_back_bit_for_bit(dtype: torch.dtype) -> None:
    values = torch.tensor([0.0, -0.0, 1.5, -2.25, 0.0, 1e-7], dtype=dtype)
    data = packing.packed_tensor(values)
    back = packing.unpacked_tensor(data, (6,), dtype, masked=True)
    assert back.numpy().tobytes() == values.numpy().tobytes()
    assert len(data) == 1 + 4 * dtype.itemsize


def network(name: str, bits: Bits, sparsity: float) -> Network:
    torch.manual_seed(0)
    architecture, shape = networks.parse(name), (3, 16, 16)
    model = networks.build(architecture, shape, 10)
    if bits.quantised:
        from contest.quantisation import quantise

        model = quantise(model, bits, torch.rand(4, *shape))
    pruning.enforce(model, pruning.prune(model, "magnitude", sparsity))
    return freeze(
        model, architecture, image_shape=shape, classes=10, weight_bits=bits.weights, number_bits=bits.numbers
    )


CASES = [
    ("resnet:depth=8", Bits(3, 3), 0.6),
    ("resnet:depth=8", Bits(3, 3, numbers=8), 0.6),
    ("resnet:depth=8", Bits(1, 2), 0.5),
    ("resnet:depth=8", Bits(32, 32), 0.5),
    ("resnet:depth=8", Bits(16, 16), 0.0),
    ("mnist_cnn", Bits(4, 8, layers={"conv1": (8, 8)}), 0.3),
]


@pytest.mark.parametrize(("name", "bits", "sparsity"), CASES)
def test_the_identical_network_comes_back(name: str, bits: Bits, sparsity: float, tmp_path: Path) -> None:
    before = network(name, bits, sparsity)
    packing.pack(before, tmp_path / "n.packed")
    after = packing.unpack(tmp_path / "n.packed")
    assert after.manifest == before.manifest
    states = (before.state_dict(), after.state_dict())
    assert list(states[0]) == list(states[1])
    for name_, tensor in states[0].items():
        assert tensor.dtype == states[1][name_].dtype
        assert tensor.numpy().tobytes() == states[1][name_].numpy().tobytes(), name_
    images = torch.rand(3, 3, 16, 16)
    assert torch.equal(before(images), after(images))


@pytest.mark.parametrize(("name", "bits", "sparsity"), CASES)
def test_the_payload_is_the_scores_figure_and_the_bitmask(
    name: str, bits: Bits, sparsity: float, tmp_path: Path
) -> None:
    from scoring.rules import load_rule
    from scoring.score import score_file

    frozen = network(name, bits, sparsity)
    size = packing.pack(frozen, tmp_path / "n.packed")
    report = score_file(save(frozen, tmp_path / "model.pt"), trust=True)
    score = report.scores["lab"]
    with_bitmask = score.params + score.total_with_bitmask - score.total
    expected_bytes = with_bitmask * load_rule("lab").params_reference * 4
    assert size.payload_bytes == pytest.approx(expected_bytes, rel=0.05)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "n.packed"
    packing.pack(network("resnet:depth=8", Bits(2, 2), 0.5), path)
    content = path.read_bytes()
    start = len(packing.MAGIC) + 8
    (length,) = struct.unpack("<Q", content[start - 8 : start])
    header = json.loads(content[start : start + length])

    def with_header(text: bytes) -> bytes:
        return packing.MAGIC + struct.pack("<Q", len(text)) + text + content[start + length :]

    other_bits = json.loads(json.dumps(header))
    coded = next(t for t in other_bits["tensors"] if t["bits"])
    coded |= {"bits": 8, "masked": False, "shape": [coded["bytes"]], "lowest": None}
    huge = json.loads(json.dumps(header))
    huge["tensors"][0]["shape"] = [2**40]
    for damaged, words in (
        (b"something else", "not a packed network"),
        (packing.MAGIC + struct.pack("<Q", 2**60), "header"),
        (content[:-3], "needed"),
        (content + b"more", "after its last tensor"),
        (with_header(b"{}"), "damaged header"),
        (with_header(b"[" * 100_000), "damaged header"),
        (with_header(json.dumps(huge).encode()), "impossible shape"),
        (with_header(json.dumps(other_bits).encode()), "needs"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(RefusedError, match=words):
            packing.unpack(path)
    with pytest.raises(UsageError, match="not a file"):
        packing.unpack(tmp_path / "nothing.packed")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_the_file_comes_back_byte_for_byte(tmp_path: Path, suffix: str) -> None:
    model = save(network("resnet:depth=8", Bits(2, 2), 0.5), tmp_path / f"model{suffix}")
    content = model.read_bytes()
    packed = tmp_path / "renamed.packed"
    packing.pack(load(model), packed, model=model)
    written, same = packing.unpack_file(packed)
    assert written == packed.with_suffix(suffix) and same
    assert written.read_bytes() == content
    other = ".pt" if suffix == ".safetensors" else ".safetensors"
    assert packing.unpack_file(packed, tmp_path / f"other{other}")[1] is False


def test_a_file_that_another_program_wrote_is_not_called_the_same(tmp_path: Path) -> None:
    model = save(network("resnet:depth=8", Bits(2, 2), 0.5), tmp_path / "model.pt")
    torch.save(torch.load(model, weights_only=True), tmp_path / "theirs.pt")  # torch writes the name into it
    packing.pack(load(tmp_path / "theirs.pt"), tmp_path / "n.packed", model=tmp_path / "theirs.pt")
    assert packing.unpack_file(tmp_path / "n.packed")[1] is False
    (tmp_path / "n.pt").write_bytes(b"precious")
    with pytest.raises(UsageError, match="exists and is not the file that was packed"):
        packing.unpack_file(tmp_path / "n.packed")
    assert (tmp_path / "n.pt").read_bytes() == b"precious"


def test_on_the_command_line(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from contest.cli import cli

    model = save(network("resnet:depth=8", Bits(2, 2), 0.5), tmp_path / "model.pt")
    run = CliRunner()
    assert run.invoke(cli, ["pack", str(model)], catch_exceptions=False).exit_code == 0
    out = tmp_path / "again.pt"
    result = run.invoke(cli, ["unpack", str(tmp_path / "model.packed"), "--out", str(out)])
    assert result.exit_code == 0 and "the very file that was packed" in result.output
    assert out.read_bytes() == model.read_bytes()
    result = run.invoke(cli, ["pack", str(model), "--out", str(model)])
    assert isinstance(result.exception, UsageError)
