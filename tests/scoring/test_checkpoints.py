"""Checkpoints as people save them go in at the first try, and run as their author runs them."""

from __future__ import annotations

import gzip
import os
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from contest.errors import RefusedError, UsageError
from contest.untrusted import check_file
from scoring.readers.checkpoint_fit import load_state
from scoring.readers.checkpoint_reader import open_checkpoint, tensor_dictionaries
from scoring.readers.user_module import load_module
from scoring.score import score_module
from tests.scoring import students

ARCH = "tests.scoring.students:lenet"


def agrees(model: nn.Module) -> bool:
    """The numbers of the trained network, each of them."""
    wanted = students.trained().state_dict()
    return all(torch.equal(tensor, wanted[name]) for name, tensor in model.state_dict().items() if name in wanted)


@pytest.mark.parametrize("form", students.CHECKPOINTS)
def test_every_form_fills_the_module(form: str, tmp_path: Path) -> None:
    torch.save(students.CHECKPOINTS[form](), tmp_path / "ckpt.pth")
    model = load_module(ARCH, tmp_path / "ckpt.pth")
    assert students.correct(model) == students.correct(students.trained())
    if "masks" not in form:
        assert agrees(model)


def test_the_oldest_format_and_other_containers(tmp_path: Path) -> None:
    state = students.trained().state_dict()
    old = {"net": state, "acc": np.float64(91.0)}
    torch.save(old, tmp_path / "old.t7", _use_new_zipfile_serialization=False)
    np.savez(tmp_path / "arrays.npz", **{name: tensor.numpy() for name, tensor in state.items()})  # type: ignore[arg-type]
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "hub.safetensors")
    with (tmp_path / "plain.pkl").open("wb") as file:
        pickle.dump({name: tensor.numpy() for name, tensor in state.items()}, file)
    with (tmp_path / "tensors.pickle").open("wb") as file:
        pickle.dump(dict(state), file)
    np.save(tmp_path / "object.npy", {name: tensor.numpy() for name, tensor in state.items()}, allow_pickle=True)  # type: ignore[arg-type]
    sparse = {name: tensor.to_sparse() if tensor.dim() == 4 else tensor for name, tensor in state.items()}
    torch.save(sparse, tmp_path / "sparse.pth")
    written = ("plain.pkl", "tensors.pickle", "object.npy", "sparse.pth")
    for name in ("old.t7", "arrays.npz", "hub.safetensors", *written):
        assert agrees(load_module(ARCH, tmp_path / name)), name


def test_the_score_is_the_authors_accuracy_whatever_the_memory_of_the_images(tmp_path: Path) -> None:
    """One channel is contiguous in both layouts, and `view` behind a convolution fails in one of them."""
    report = score_module(students.trained(), (1, 8, 8), images=students.digits(), rule="digits")
    assert report.accuracy is not None
    assert report.accuracy.correct == students.correct(students.trained())


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)
        self.fc = nn.Linear(8 * 4 * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x.contiguous())).contiguous()
        return self.fc(x.view(x.size(0), -1))  # type: ignore[no-any-return]


def test_channels_last_pictures_in_colour(tmp_path: Path) -> None:
    from contest.datasets.images import Images

    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (40, 8, 8, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    model = Flat().eval()
    labels = model(pixels.float().contiguous() / 255).argmax(1)
    labels[0] = 9
    report = score_module(model, (3, 8, 8), images=Images(pixels, labels), rule="lab")
    assert report.accuracy is not None
    assert report.accuracy.correct >= 39


def test_where_two_fit_the_key_chooses(tmp_path: Path) -> None:
    path = tmp_path / "both.pth"
    torch.save(students.CHECKPOINTS["model beside its average"](), path)
    notes: list[str] = []
    assert agrees(load_module(ARCH, path, notes=notes))
    assert "'model_ema'" in notes[-1] and "--state-key" in notes[-1]
    averaged = load_module(ARCH, path, state_key="model_ema")
    assert not any(tensor.any() for tensor in averaged.state_dict().values())
    with pytest.raises(RefusedError, match="no tensors under 'ema'; it has them under 'model'"):
        load_module(ARCH, path, state_key="ema")


def test_names_that_do_not_match_are_named_with_the_nearest(tmp_path: Path) -> None:
    state = students.trained().state_dict()
    state["conv_1.weight"] = state.pop("conv1.weight")
    torch.save(state, tmp_path / "names.pth")
    with pytest.raises(RefusedError) as refused:
        load_module(ARCH, tmp_path / "names.pth")
    for part in ("wants 'conv1.weight'", "has 'conv_1.weight'", "nearest to 'conv_1.weight'"):
        assert part in str(refused.value)
    torch.save({"encoder.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(RefusedError, match=r"the file has 'encoder.weight', the module wants 'conv1.weight'"):
        load_module(ARCH, tmp_path / "other.pth")


def test_parametrizations_that_the_factory_lacks_are_named_with_the_way_out(tmp_path: Path) -> None:
    model = students.lenet()
    nn.utils.parametrizations.weight_norm(model.conv1)
    torch.save(model.state_dict(), tmp_path / "norm.pth")
    with pytest.raises(
        RefusedError, match=r"apply them in the factory too, .*remove_parametrizations\(layer, 'weight'\)"
    ):
        load_module(ARCH, tmp_path / "norm.pth")


def test_what_lies_beside_the_network_in_a_training_module_is_left_out(tmp_path: Path) -> None:
    """Lightning saves the weights of the loss and the metrics in the dictionary of the network."""
    state = {f"model.{name}": tensor for name, tensor in students.trained().state_dict().items()}
    beside = {"criterion.weight": torch.ones(10), "val_acc.tp": torch.zeros(10)}
    torch.save({"state_dict": {**beside, **state}, "hyper_parameters": {"lr": 0.1}}, tmp_path / "last.ckpt")
    notes: list[str] = []
    assert agrees(load_module(ARCH, tmp_path / "last.ckpt", notes=notes))
    assert any("'criterion.weight', 'val_acc.tp' of the file lack that prefix" in note for note in notes)


def test_a_teacher_beside_the_student_is_not_taken_for_it(tmp_path: Path) -> None:
    state, teacher = students.trained().state_dict(), students.lenet().state_dict()
    both = {f"{who}.{name}": t for who, net in (("teacher", teacher), ("student", state)) for name, t in net.items()}
    torch.save(both, tmp_path / "both.pth")
    with pytest.raises(RefusedError, match=r"under each of 'teacher.', 'student.'; save .*removeprefix\('teacher.'\)"):
        load_module(ARCH, tmp_path / "both.pth")


def test_damaged_safetensors_and_names_of_libraries_are_one_sentence(tmp_path: Path) -> None:
    save_file({"fc.weight": torch.zeros(10, 48)}, tmp_path / "cut.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "cut.safetensors").read_bytes()[:-100])
    with pytest.raises(RefusedError, match=r"cannot be opened as safetensors \(.*copy it anew"):
        load_module(ARCH, tmp_path / "cut.safetensors")
    with pytest.raises(UsageError, match=r"create_model\('resnet10t', num_classes=10\)` .*--arch net.py:make"):
        load_module("timm/resnet10t", None)


def test_another_number_of_classes_is_named(tmp_path: Path) -> None:
    state = {**students.trained().state_dict(), "fc.weight": torch.zeros(100, 48)}
    torch.save(state, tmp_path / "classes.pth")
    with pytest.raises(RefusedError, match=re.escape("'fc.weight' is [100, 48] in the file and [10, 48]")):
        load_module(ARCH, tmp_path / "classes.pth")


def test_half_precision_stays_tensor_by_tensor() -> None:
    state = {name: t.half() if name.startswith("conv") else t for name, t in students.trained().state_dict().items()}
    model = students.lenet()
    load_state(model, {"": state})
    assert model.conv1.weight.dtype == torch.float16
    assert model.fc.weight.dtype == torch.float32


class Trap:
    """Runs a command where a pickle is opened in the usual way."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


def test_nothing_that_a_file_names_is_run(tmp_path: Path) -> None:
    torch.save({"net": students.trained().state_dict(), "trap": Trap(tmp_path / "sprung")}, tmp_path / "trap.pth")
    assert agrees(load_module(ARCH, tmp_path / "trap.pth"))
    assert not (tmp_path / "sprung").exists()


def test_code_and_junk_are_refused_with_the_way_out(tmp_path: Path) -> None:
    torch.jit.trace(students.trained(), torch.rand(1, 1, 8, 8)).save(str(tmp_path / "script.pt"))
    with pytest.raises(RefusedError, match=r"torch.jit.load\('script.pt'\).state_dict\(\)"):
        load_module(ARCH, tmp_path / "script.pt")
    (tmp_path / "net.h5").write_bytes(b"\x89HDF")
    with pytest.raises(RefusedError, match="tf2onnx"):
        load_module(ARCH, tmp_path / "net.h5")
    (tmp_path / "junk.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(RefusedError, match="cannot be opened as a checkpoint"):
        load_module(ARCH, tmp_path / "junk.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    assert tensor_dictionaries(open_checkpoint(tmp_path / "empty.pth")) == {}
    with pytest.raises(RefusedError, match="holds no tensors by name"):
        load_module(ARCH, tmp_path / "empty.pth")


def test_what_does_not_go_in_says_what_to_do_next(tmp_path: Path) -> None:
    state = students.trained().state_dict()
    torch.save(state, tmp_path / "w.pth")
    with gzip.open(tmp_path / "w.pth.gz", "wb") as packed:
        packed.write((tmp_path / "w.pth").read_bytes())
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.write(tmp_path / "w.pth", "w.pth")
    torch.save(dict(students.trained().named_parameters()), tmp_path / "parameters.pth")
    for name, said in (("w.pth.gz", "gunzip w.pth.gz"), ("w.zip", "unzip w.zip"), ("parameters.pth", "state_dict")):
        with pytest.raises(RefusedError, match=said):
            load_module(ARCH, tmp_path / name)
    with pytest.raises(UsageError, match="did you mean 'lenet'"):
        load_module("tests.scoring.students:lenett", None)
    with pytest.raises(UsageError, match=r"def make\(\): return HandWritten\(...\).*students:make"):
        load_module("tests.scoring.students:HandWritten", None)
    torch.jit.trace(students.trained(), torch.rand(1, 1, 8, 8)).save(str(tmp_path / "script.pt"))
    with pytest.raises(RefusedError, match="TorchScript"):
        check_file(tmp_path / "script.pt")


def test_of_several_things_the_logits_are_taken() -> None:
    class Several(nn.Module):
        def __init__(self, named: bool) -> None:
            super().__init__()
            self.net, self.named = students.LeNet(), named

        def forward(self, x: Tensor) -> object:
            hidden, logits = x.flatten(1).sum(1), self.net(x)
            return {"hidden": hidden, "logits": logits} if self.named else (hidden, logits)

    for named in (True, False):
        model = Several(named).eval()
        model.net.load_state_dict(students.trained().state_dict())
        report = score_module(model, (1, 8, 8), images=students.digits(), rule="digits")
        assert report.accuracy is not None
        assert report.accuracy.correct == students.correct(students.trained())
        assert any("return the logits" in problem for problem in report.problems)


def test_classes_in_place_of_logits() -> None:
    """An argmax at the end chooses what the logits choose; the network is the one before it."""

    class Chooses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = students.trained()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x).argmax(1)  # type: ignore[no-any-return]

    report = score_module(Chooses(), (1, 8, 8), images=students.digits(), rule="digits")
    plain = score_module(students.trained(), (1, 8, 8), images=students.digits(), rule="digits")
    assert report.accuracy == plain.accuracy
    assert report.score.total == plain.score.total
    assert not any("own engine" in note for note in report.costs["notes"])


def test_the_network_is_found_in_the_working_folder_and_by_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_net.py").write_text("from torch import nn\n\ndef make():\n    return nn.Linear(2, 2)\n")
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    assert isinstance(load_module("my_net:make", None), nn.Linear)
    monkeypatch.chdir(tmp_path / "sub")
    assert isinstance(load_module("../my_net.py:make", None), nn.Linear)
    (tmp_path / "broken_net.py").write_text("def make():\n    raise ValueError('no data')\n")
    with pytest.raises(UsageError, match="ValueError: no data"):
        load_module("../broken_net.py:make", None)


def test_a_file_of_this_program_needs_no_factory() -> None:
    with pytest.raises(RefusedError, match="holds its network itself: score it without --arch"):
        load_module(ARCH, Path(__file__).parents[1] / "old_files" / "quantised.pt")
