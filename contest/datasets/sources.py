"""Where data sets come from: torchvision's downloads, a directory of one's own, scikit-learn's digits."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from contest.datasets.images import DataSet, Images, split
from contest.datasets.registry import Facts, facts, known, read_facts
from contest.errors import DataError, did_you_mean

Array = NDArray[np.generic]

DIGITS_TEST = 360
PICTURES = {".png", ".jpg", ".jpeg"}
VAL = "val_annotations.txt"


def load(name: str, directory: Path | None = None, *, download: bool = True) -> DataSet:
    """The data set `name`: one of `contest.datasets.registry`, or one of your own in `directory`.

    `directory` (default: the environment's CONTEST_DATA, else a cache in the home directory) may be or hold
    an `.npz` with x_train, y_train, x_test, y_test (itself, or `<name>.npz`), image folders
    `train/<class>/*.png|jpg` and `test/...` (in `<name>/` or itself), or torchvision's files, which are
    downloaded there where they are missing. The digits come with scikit-learn and need nothing. A `<name>.toml` beside
    them says what images cannot: title, names of classes, whether mirrored images keep their class, mean and std.

    Raises DataError where there is nothing to load or what is there is damaged.
    """
    if name == "digits":
        if directory is not None and not directory.exists():
            raise DataError(f"--data {directory}: no such folder; the digits come with scikit-learn, so leave it out")
        return _digits()
    given = directory or (Path(os.environ["CONTEST_DATA"]) if os.environ.get("CONTEST_DATA") else None)
    if given is not None:
        found = _own_files(_facts_in(name, given), given)
        if found is not None:
            return found
    row = facts(name)
    if row.torchvision is None:
        names = sorted(known())
        near, where = did_you_mean(name, names), f" in '{given}'" if given else ""
        raise DataError(f"no data set '{name}'{where}{near}; known by name are {', '.join(names)}; {_ways(name)}")
    return _torchvision(row, row.torchvision, given or Path.home() / ".cache" / "contest", download)


def _facts_in(name: str, given: Path) -> Facts:
    """A user's file beside the data comes before the row of that name."""
    folder = given if given.is_dir() else given.parent
    for path in (folder / f"{name}.toml", folder / name / f"{name}.toml"):
        if path.is_file():
            return read_facts(name, path)
    return facts(name)


def _own_files(row: Facts, given: Path) -> DataSet | None:
    """What is named after the data set comes before what only lies there."""
    for archive in (given, given / f"{row.name}.npz"):
        if archive.suffix == ".npz" and archive.is_file():
            return _archive(row, archive)
    for folder in (given / row.name, given):
        if (folder / "train").is_dir():
            return _folders(row, folder)
    return None


def _ways(name: str) -> str:
    return (
        f"give a directory (--data DIR or CONTEST_DATA) that holds torchvision's files, '{name}.npz' with "
        "x_train, y_train, x_test, y_test, or image folders train/<class>/*.png|jpg and test/<class>/...; "
        "the data set 'digits' needs neither files nor network"
    )


def _torchvision(row: Facts, kind: str, root: Path, download: bool) -> DataSet:
    from torchvision import datasets

    parts = []
    classes: tuple[str, ...] = ()
    for part_name in ("train", "test"):
        # SVHN, of these alone, calls its parts by name and its labels `labels`.
        chosen = {"split": part_name} if kind == "SVHN" else {"train": part_name == "train"}
        try:
            # torchvision compares checksums, of what lies there and of what it downloads
            part = getattr(datasets, kind)(root, download=download, **chosen)
        except (RuntimeError, OSError) as error:
            raise DataError(
                f"{row.name} is not in '{root}' and did not download ({error}): {_ways(row.name)}"
            ) from error
        pixels = np.asarray(part.data)
        if kind == "SVHN":
            pixels = pixels.transpose(0, 2, 3, 1)
        classes = tuple(getattr(part, "classes", ()))
        labels = np.asarray(part.labels if kind == "SVHN" else part.targets)
        parts.append(_images(row, pixels, labels, f"{row.name} of torchvision"))
    return DataSet(row.name, _classes(row, classes or parts[0]), parts[0], parts[1])


def _classes(row: Facts, found: tuple[str, ...] | Images) -> tuple[str, ...]:
    """The row's names; else those that came with the images; else the labels as numbers."""
    if isinstance(row.classes, tuple):
        return row.classes
    if isinstance(found, tuple):
        return found
    return tuple(str(one) for one in range(row.classes or int(found.labels.max()) + 1))


def _archive(row: Facts, path: Path) -> DataSet:
    if not zipfile.is_zipfile(path):  # NumPy takes it for a pickle, and advises to load it "unsafely"
        size = path.stat().st_size
        raise DataError(
            f"'{path}' is not a readable .npz: its {size:,} bytes are no zip archive, as after a copy or a download "
            "that stopped; bring it again, or write it with numpy.savez_compressed"
        )
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays: Mapping[str, Array] = {
                key: file[key] for key in ("x_train", "y_train", "x_test", "y_test", "classes") if key in file
            }
    except (
        OSError,
        ValueError,
        TypeError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
        RuntimeError,
        MemoryError,
    ) as error:
        raise DataError(f"'{path}' is not a readable .npz: {error}") from error
    for needed in ("x_train", "y_train"):
        if needed not in arrays:
            raise DataError(f"'{path}' has no array '{needed}'; it has {sorted(arrays)}")
    train = _images(row, arrays["x_train"], arrays["y_train"], f"training part of '{path}'")
    test = None
    if "x_test" in arrays and "y_test" in arrays:
        test = _images(row, arrays["x_test"], arrays["y_test"], f"test part of '{path}'")
    if "classes" in arrays:
        classes = tuple(str(one) for one in arrays["classes"])
    else:
        classes = _classes(row, train)
    return _checked(DataSet(row.name, classes, train, test), str(path))


def _folders(row: Facts, folder: Path) -> DataSet:
    classes = tuple(sorted(entry.name for entry in (folder / "train").iterdir() if entry.is_dir()))
    if not classes:
        raise DataError(f"'{folder / 'train'}' has no class folders; {_ways(row.name)}")
    test = _pictures(row, folder / "test", classes) if (folder / "test").is_dir() else None
    if (folder / "val" / VAL).is_file():
        test = _annotated(row, folder / "val", classes)
    names = row.classes if isinstance(row.classes, tuple) and len(row.classes) == len(classes) else classes
    return _checked(DataSet(row.name, names, _pictures(row, folder / "train", classes), test), str(folder))


def _pictures(row: Facts, folder: Path, classes: tuple[str, ...]) -> Images:
    strangers = {entry.name for entry in folder.iterdir() if entry.is_dir()} - set(classes)
    if strangers:
        raise DataError(f"'{folder}' has classes that the training images lack: {sorted(strangers)}")
    # Tiny ImageNet has one more folder, `images`, in that of each class.
    found = [
        (path, label)
        for label, one in enumerate(classes)
        for inside in (folder / one, folder / one / "images")
        for path in sorted(inside.glob("*"))
    ]
    return _read(row, found, folder)


def _annotated(row: Facts, folder: Path, classes: tuple[str, ...]) -> Images:
    """Tiny ImageNet's validation images, its test set as people use it: a list of (file, class, box)."""
    number = {one: label for label, one in enumerate(classes)}
    found = []
    for line in (folder / VAL).read_text().splitlines():
        parts = line.split()
        if len(parts) < 2 or parts[1] not in number:
            raise DataError(f"'{folder / VAL}': '{line[:60]}' names no class of the training images")
        found.append((folder / "images" / parts[0], number[parts[1]]))
    return _read(row, found, folder)


def _read(row: Facts, files: Sequence[tuple[Path, int]], folder: Path) -> Images:
    """Pictures with their labels, all of one size."""
    from PIL import Image, UnidentifiedImageError

    pixels: list[Array] = []
    labels: list[int] = []
    for path, label in files:
        if path.suffix.lower() not in PICTURES:
            continue
        try:
            with Image.open(path) as picture:
                # A grey picture of a data set in colour (Tiny ImageNet has some) is in colour too.
                grey = picture.mode == "L" and not (row.image_shape and row.image_shape[0] == 3)
                pixels.append(np.asarray(picture if grey else picture.convert("RGB")))
        except (OSError, UnidentifiedImageError) as error:
            raise DataError(f"'{path}' is not a readable picture: {error}") from error
        labels.append(label)
        if pixels[-1].shape != pixels[0].shape:
            raise DataError(
                f"'{path}' is {pixels[-1].shape}, the pictures before it {pixels[0].shape} (height, width, "
                "channels); all must have one size and all be grey or all in colour"
            )
    if not pixels:
        raise DataError(f"'{folder}' has no {' or '.join(sorted(PICTURES))} in its class folders")
    return _images(row, np.stack(pixels), np.asarray(labels), f"'{folder}'")


def _digits() -> DataSet:
    """1,797 grey digits of 8 x 8 pixels with values 0 to 16 (UCI), 360 of them always the test set."""
    pixels, labels = _digits_table()
    grey = np.round(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    parts = split(_images(facts("digits"), grey, labels, "digits of scikit-learn"), DIGITS_TEST, seed=0)
    return DataSet("digits", _classes(facts("digits"), parts.train), parts.train, parts.validation)


def _digits_table() -> tuple[NDArray[np.float64], Array]:
    """scikit-learn's [N, 64] pixels and [N] labels, from its file: importing it takes longer than all the rest."""
    package = find_spec("sklearn")
    for place in (package.submodule_search_locations or ()) if package else ():
        path = Path(place) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            table = np.loadtxt(path, delimiter=",")
            return table[:, :-1], table[:, -1].astype(int)
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return pixels, labels


def _images(row: Facts, pixels: Array, labels: Array, origin: str) -> Images:
    """From [N, H, W] or [N, H, W, C] and [N] (or Keras's [N, 1])."""
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or (pixels.ndim == 4 and pixels.shape[3] not in (1, 3)):
        raise DataError(
            f"{origin}: pixels are {pixels.dtype} of shape {list(pixels.shape)}; they must be uint8 (0 to 255) of "
            "shape [N, H, W] or [N, H, W, C] with 1 or 3 channels"
        )
    if labels.dtype.kind not in "iu" or labels.size != len(pixels) or not len(pixels):
        raise DataError(
            f"{origin}: {labels.size} labels of type {labels.dtype} for {len(pixels)} images; "
            "there must be one integer for each image"
        )
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    nchw = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)
    flat = torch.from_numpy(labels.reshape(-1).astype(np.int64))
    channels = pixels.shape[3]
    if row.statistics is not None and len(row.statistics[0]) != channels:
        raise DataError(f"{origin}: images have {channels} channels; mean and std of '{row.name}' have other numbers")
    flips = row.flips if row.flips is not None else channels == 3
    return Images(nchw, flat, flips, row.statistics)


def _checked(data: DataSet, origin: str) -> DataSet:
    """Labels inside the classes, test images as large as training images."""
    for part in (data.train, data.test):
        if part is None:
            continue
        low, high = int(part.labels.min()), int(part.labels.max())
        if low < 0 or high >= len(data.classes):
            raise DataError(f"{origin}: labels go from {low} to {high} for {len(data.classes)} classes")
        if part.shape != data.train.shape:
            raise DataError(f"{origin}: test images are {part.shape}, training images {data.train.shape}")
    return data
