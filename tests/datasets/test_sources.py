"""Data sets from every place they may come from."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import pickle
import struct
import tarfile
import threading
import urllib.error
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision import datasets

from contest.datasets import load
from contest.errors import DataError

RANDOM = np.random.default_rng(0)
COLOUR = RANDOM.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
GREY = RANDOM.integers(0, 256, (12, 28, 28), dtype=np.uint8)
LABELS = np.arange(12) % 10


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network but this machine's, no data but the test's."""
    import torchvision.datasets.utils as utils

    original = utils.urllib.request.urlopen

    def local_only(request: Any, *arguments: Any, **options: Any) -> Any:
        if "127.0.0.1" not in getattr(request, "full_url", str(request)):
            raise urllib.error.URLError("no network")
        return original(request, *arguments, **options)

    monkeypatch.setattr(utils.urllib.request, "urlopen", local_only)
    monkeypatch.delenv("CONTEST_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_digits_are_bundled_and_their_test_set_is_fixed() -> None:
    from sklearn.datasets import load_digits

    one, again = load("digits"), load("digits")
    assert one.test is not None and again.test is not None
    assert (len(one.train), len(one.test), one.image_shape) == (1437, 360, (1, 8, 8))
    assert np.array_equal(one.test.pixels, again.test.pixels)
    assert set(np.bincount(one.test.labels)) <= {35, 36, 37}
    # value v of 0 .. 16 became round(v * 255 / 16); together the parts are scikit-learn's set
    values = np.concatenate([one.train.pixels, one.test.pixels]).reshape(-1, 64) * (16 / 255)
    assert np.abs(values - values.round()).max() < 0.05
    ours = sorted(map(tuple, values.round().astype(int).tolist()))
    assert ours == sorted(map(tuple, load_digits().data.astype(int).tolist()))


@pytest.mark.parametrize("as_file", [True, False])
def test_npz(tmp_path: Path, as_file: bool) -> None:
    path = tmp_path / "flowers.npz"
    np.savez(path, x_train=COLOUR, y_train=LABELS[:, None], x_test=COLOUR[:3], y_test=LABELS[:3])
    data = load("flowers", path if as_file else tmp_path, download=False)
    assert data.test is not None and data.classes == tuple("0123456789") and data.flips
    assert np.array_equal(data.train.pixels.permute(0, 2, 3, 1), COLOUR)
    assert data.train.labels.tolist() == LABELS.tolist() and len(data.test) == 3


def test_npz_through_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "mnist.npz", x_train=GREY, y_train=LABELS)
    monkeypatch.setenv("CONTEST_DATA", str(tmp_path))
    data = load("mnist")
    assert data.image_shape == (1, 28, 28) and data.test is None and not data.flips


def test_npz_names_its_classes(tmp_path: Path) -> None:
    np.savez(tmp_path / "pets.npz", x_train=GREY, y_train=LABELS % 2, classes=np.array(["cat", "dog"]))
    data = load("pets", tmp_path)
    assert data.classes == ("cat", "dog") and not data.flips, "grey pictures of one's own may be digits"


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x_train": COLOUR}, "no array 'y_train'"),
        ({"x_train": COLOUR / 255, "y_train": LABELS}, "must be uint8"),
        ({"x_train": COLOUR.transpose(0, 3, 1, 2), "y_train": LABELS}, r"\[N, H, W, C\]"),
        ({"x_train": COLOUR, "y_train": LABELS[:5]}, "5 labels .* for 12 images"),
        ({"x_train": COLOUR, "y_train": LABELS / 1.0}, "one integer for each image"),
        ({"x_train": COLOUR, "y_train": LABELS - 1}, "labels go from -1"),
        ({"x_train": COLOUR, "y_train": LABELS, "x_test": COLOUR, "y_test": LABELS + 1}, "to 10 for 10 classes"),
        ({"x_train": COLOUR, "y_train": LABELS, "x_test": GREY, "y_test": LABELS}, "test images are"),
        ({"x_train": COLOUR[:0], "y_train": LABELS[:0]}, "one integer for each image"),
        ({"x_train": np.array([{}]), "y_train": LABELS}, "not a readable .npz"),
    ],
)
def test_npz_that_is_wrong(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    np.savez(tmp_path / "flowers.npz", **arrays)
    with pytest.raises(DataError, match=words):
        load("flowers", tmp_path)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\x80\x04N.", "half"])
def test_npz_that_is_none_is_said_to_be_none(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "flowers.npz"
    np.savez(path, x_train=COLOUR, y_train=LABELS)
    path.write_bytes(content if isinstance(content, bytes) else path.read_bytes()[:1000])
    with pytest.raises(DataError, match="no zip archive") as caught:
        load("flowers", tmp_path)
    assert "unsafe" not in str(caught.value) and "pickle" not in str(caught.value)


def test_npz_behind_a_password(tmp_path: Path) -> None:
    path = tmp_path / "flowers.npz"
    np.savez(path, x_train=COLOUR, y_train=LABELS)
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # bit 0 of the flags: encrypted (APPNOTE 4.4.4)
        at = content.find(signature)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(signature, at + 4)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"not a readable \.npz: .*encrypted"):
        load("flowers", tmp_path)


def test_npz_that_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "flowers.npz").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(DataError, match=r"flowers\.npz' is not a readable \.npz"):
        load("flowers", tmp_path)


def folders(root: Path, pixels: np.ndarray[Any, Any], parts: tuple[str, ...] = ("train", "test")) -> None:
    for part in parts:
        for index, picture in enumerate(pixels[:6]):
            folder = root / part / ("cat", "dog", "emu")[index % 3]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(folder / f"{index}.png")


@pytest.mark.parametrize("pixels", [COLOUR, GREY], ids=["colour", "grey"])
@pytest.mark.parametrize("inside", ["", "pets"])
def test_folders(tmp_path: Path, pixels: np.ndarray[Any, Any], inside: str) -> None:
    folders(tmp_path / inside, pixels)
    (tmp_path / inside / "train" / "cat" / "notes.txt").write_text("not a picture")
    data = load("pets", tmp_path)
    assert data.classes == ("cat", "dog", "emu") and data.test is not None
    assert data.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    expected = pixels[[0, 3, 1, 4, 2, 5]]
    assert np.array_equal(data.train.pixels.permute(0, 2, 3, 1).reshape(expected.shape), expected)


def test_folders_with_jpeg_and_without_test(tmp_path: Path) -> None:
    folders(tmp_path, COLOUR, ("train",))
    Image.fromarray(COLOUR[7]).save(tmp_path / "train" / "emu" / "9.JPG")
    data = load("pets", tmp_path)
    assert len(data.train) == 7 and data.test is None


def test_folders_that_are_wrong(tmp_path: Path) -> None:
    folders(tmp_path, COLOUR)
    Image.fromarray(COLOUR[0, :16]).save(tmp_path / "train" / "dog" / "small.png")
    with pytest.raises(DataError, match=r"small\.png' is \(16, 32, 3\)"):
        load("pets", tmp_path)
    (tmp_path / "train" / "dog" / "small.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"small\.png' is not a readable picture"):
        load("pets", tmp_path)
    (tmp_path / "train" / "dog" / "small.png").unlink()
    (tmp_path / "test" / "fox").mkdir()
    with pytest.raises(DataError, match=r"lack: \['fox'\]"):
        load("pets", tmp_path)
    for empty in ("a", "b"):
        (tmp_path / "empty" / "train" / empty).mkdir(parents=True)
    with pytest.raises(DataError, match=r"has no \.jpeg or \.jpg or \.png"):
        load("pets", tmp_path / "empty")


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


@pytest.fixture
def cifar_files(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """CIFAR-10's files with two images each, and their checksums where torchvision has those of the real ones."""
    files = {}
    for index, name in enumerate([*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]):
        rows = COLOUR[2 * index : 2 * index + 2].transpose(0, 3, 1, 2).reshape(2, -1)
        files[name] = pickle.dumps({"data": rows, "labels": LABELS[2 * index : 2 * index + 2].tolist()})
    files["batches.meta"] = pickle.dumps({"label_names": list("abcdefghij")})
    names = [name for name in files if name.startswith("data")]
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[name, md5(files[name])] for name in names])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", md5(files["test_batch"])]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": md5(files["batches.meta"])}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    return files


def test_torchvisions_cifar_files_are_checked(tmp_path: Path, cifar_files: dict[str, bytes]) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name, content in cifar_files.items():
        (folder / name).write_bytes(content)
    data = load("cifar10", tmp_path, download=False)
    assert np.array_equal(data.train.pixels.permute(0, 2, 3, 1), COLOUR[:10]) and data.test is not None
    assert data.test.labels.tolist() == LABELS[10:].tolist() and data.classes[0] == "airplane"
    (folder / "data_batch_3").write_bytes(cifar_files["data_batch_3"] + b"!")
    with pytest.raises(DataError, match="corrupted"):
        load("cifar10", tmp_path, download=False)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()


def test_download_with_checksum(
    tmp_path: Path, cifar_files: dict[str, bytes], server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = server
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in cifar_files.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    (folder / "cifar.tar.gz").write_bytes(packed.getvalue())
    monkeypatch.setattr(datasets.CIFAR10, "url", f"{address}/cifar.tar.gz")
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", "0" * 32)
    with pytest.raises(DataError, match="did not download"):
        load("cifar10", tmp_path / "here")
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(packed.getvalue()))
    assert len(load("cifar10", tmp_path / "here").train) == 10
    assert len(load("cifar10", tmp_path / "here", download=False).train) == 10


def test_torchvisions_mnist_files(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        pictures = struct.pack(">4i", 0x803, 12, 28, 28) + GREY.tobytes()
        labels = struct.pack(">2i", 0x801, 12) + LABELS.astype(np.uint8).tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(pictures)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(labels)
        (raw / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(pictures))
    data = load("mnist", tmp_path, download=False)
    assert np.array_equal(data.train.pixels[:, 0], GREY) and data.train.labels.tolist() == LABELS.tolist()


def test_torchvisions_svhn_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = {}
    for part in ("train", "test"):
        path = tmp_path / f"{part}_32x32.mat"
        # As the authors write them: [H, W, C, N], and the digit 0 has the label 10, which torchvision makes 0.
        scipy.io.savemat(path, {"X": COLOUR.transpose(1, 2, 3, 0), "y": np.where(LABELS == 0, 10, LABELS)[:, None]})
        lists[part] = ["", path.name, md5(path.read_bytes())]
    monkeypatch.setattr(datasets.SVHN, "split_list", lists)
    data = load("svhn", tmp_path, download=False)
    assert np.array_equal(data.train.pixels.permute(0, 2, 3, 1), COLOUR) and not data.flips
    assert data.train.labels.tolist() == LABELS.tolist() and data.classes == tuple("0123456789")


def test_tiny_imagenets_folders(tmp_path: Path) -> None:
    root = tmp_path / "tiny-imagenet"
    for index in range(4):
        folder = root / "train" / ("n01", "n02")[index % 2] / "images"
        folder.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(COLOUR[index]) if index else Image.fromarray(COLOUR[0, :, :, 0])
        picture.save(folder / f"{index}.png")
    (root / "val" / "images").mkdir(parents=True)
    Image.fromarray(COLOUR[7]).save(root / "val" / "images" / "val_0.png")
    (root / "val" / "val_annotations.txt").write_text("val_0.png\tn02\t0\t0\t62\t62\n")
    data = load("tiny-imagenet", tmp_path)
    assert data.test is not None and data.test.labels.tolist() == [1] and data.classes == ("n01", "n02")
    assert np.array_equal(data.test.pixels[0].permute(1, 2, 0), COLOUR[7])
    grey = data.train.pixels[0].permute(1, 2, 0).numpy()
    assert np.array_equal(grey, np.repeat(COLOUR[0, :, :, :1], 3, 2)), "a grey picture among colours is in colour"
    (root / "val" / "val_annotations.txt").write_text("val_0.png\tn09\t0\t0\t62\t62\n")
    with pytest.raises(DataError, match="names no class of the training images"):
        load("tiny-imagenet", tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "fashion-mnist", "svhn"])
@pytest.mark.parametrize("download", [True, False])
def test_without_data_and_network_the_error_names_the_ways(tmp_path: Path, name: str, download: bool) -> None:
    with pytest.raises(DataError) as caught:
        load(name, tmp_path / "nothing", download=download)
    for way in ("--data DIR", "CONTEST_DATA", f"'{name}.npz'", "train/<class>/", "torchvision's files", "'digits'"):
        assert way in str(caught.value)


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cifar10, cifar100, digits, fashion-mnist, mnist, svhn, tiny-imagenet"):
        load("imagenet", tmp_path)
