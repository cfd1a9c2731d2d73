"""Where data sets come from: torchvision's downloads, a directory of one's own, scikit-learn's digits."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from contest.datasets.images import DataSet, Images, split
from contest.errors import DataError, did_you_mean

TORCHVISION = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "mnist": "MNIST"}


FLIPS = {"cifar10": True, "cifar100": True, "mnist": False, "digits": False}


CLASSES = {
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "mnist": tuple("0123456789"),
    "digits": tuple("0123456789"),
}


Array = NDArray[np.generic]

DIGITS_TEST = 360
PICTURES = {".png", ".jpg", ".jpeg"}


def load(name: str, directory: Path | None = None, *, download: bool = True) -> DataSet:
    """The data set `name`: cifar10, cifar100, mnist, digits, or one of your own in `directory`.

    `directory` (default: the environment's CONTEST_DATA, else a cache in the home directory) may be or hold
    an `.npz` with x_train, y_train, x_test, y_test (itself, or `<name>.npz`), image folders
    `train/<class>/*.png|jpg` and `test/...` (in `<name>/` or itself), or torchvision's files, which are
    downloaded there where they are missing. The digits come with scikit-learn and need nothing.

    Raises DataError where there is nothing to load or what is there is damaged.
    """
    if name == "digits":
        return _digits()
    given = directory or (Path(os.environ["CONTEST_DATA"]) if os.environ.get("CONTEST_DATA") else None)
    if given is not None:
        found = _own_files(name, given)
        if found is not None:
            return found
    if name not in TORCHVISION:
        known = ["digits", *TORCHVISION]
        near, where = did_you_mean(name, known), f" in '{given}'" if given else ""
        raise DataError(f"no data set '{name}'{where}{near}; known by name are {', '.join(known)}; {_ways(name)}")
    return _torchvision(name, given or Path.home() / ".cache" / "contest", download)


def _own_files(name: str, given: Path) -> DataSet | None:
    """What is named after the data set comes before what only lies there."""
    for archive in (given, given / f"{name}.npz"):
        if archive.suffix == ".npz" and archive.is_file():
            return _archive(name, archive)
    for folder in (given / name, given):
        if (folder / "train").is_dir():
            return _folders(name, folder)
    return None


def _ways(name: str) -> str:
    return (
        f"give a directory (--data DIR or CONTEST_DATA) that holds torchvision's files, '{name}.npz' with "
        "x_train, y_train, x_test, y_test, or image folders train/<class>/*.png|jpg and test/<class>/...; "
        "the data set 'digits' needs neither files nor network"
    )


def _torchvision(name: str, root: Path, download: bool) -> DataSet:
    from torchvision import datasets

    kind = getattr(datasets, TORCHVISION[name])
    parts = []
    classes: tuple[str, ...] = ()
    for train in (True, False):
        try:
            # torchvision compares checksums, of what lies there and of what it downloads
            part = kind(root, train=train, download=download)
        except (RuntimeError, OSError) as error:
            raise DataError(f"{name} is not in '{root}' and did not download ({error}): {_ways(name)}") from error
        classes = tuple(part.classes)
        parts.append(_images(name, np.asarray(part.data), np.asarray(part.targets), f"{name} of torchvision"))
    return DataSet(name, CLASSES.get(name, classes), parts[0], parts[1])


def _archive(name: str, path: Path) -> DataSet:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays: Mapping[str, Array] = {
                key: file[key] for key in ("x_train", "y_train", "x_test", "y_test", "classes") if key in file
            }
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"'{path}' is not a readable .npz: {error}") from error
    for needed in ("x_train", "y_train"):
        if needed not in arrays:
            raise DataError(f"'{path}' has no array '{needed}'; it has {sorted(arrays)}")
    train = _images(name, arrays["x_train"], arrays["y_train"], f"training part of '{path}'")
    test = None
    if "x_test" in arrays and "y_test" in arrays:
        test = _images(name, arrays["x_test"], arrays["y_test"], f"test part of '{path}'")
    if "classes" in arrays:
        classes = tuple(str(one) for one in arrays["classes"])
    else:
        classes = CLASSES.get(name, tuple(str(one) for one in range(int(train.labels.max()) + 1)))
    return _checked(DataSet(name, classes, train, test), str(path))


def _folders(name: str, folder: Path) -> DataSet:
    classes = tuple(sorted(entry.name for entry in (folder / "train").iterdir() if entry.is_dir()))
    if not classes:
        raise DataError(f"'{folder / 'train'}' has no class folders; {_ways(name)}")
    test = _pictures(name, folder / "test", classes) if (folder / "test").is_dir() else None
    return _checked(DataSet(name, classes, _pictures(name, folder / "train", classes), test), str(folder))


def _pictures(name: str, folder: Path, classes: tuple[str, ...]) -> Images:
    from PIL import Image, UnidentifiedImageError

    strangers = {entry.name for entry in folder.iterdir() if entry.is_dir()} - set(classes)
    if strangers:
        raise DataError(f"'{folder}' has classes that the training images lack: {sorted(strangers)}")
    pixels: list[Array] = []
    labels: list[int] = []
    for label, one in enumerate(classes):
        for path in sorted((folder / one).glob("*")):
            if path.suffix.lower() not in PICTURES:
                continue
            try:
                with Image.open(path) as picture:
                    pixels.append(np.asarray(picture if picture.mode == "L" else picture.convert("RGB")))
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
    return _images(name, np.stack(pixels), np.asarray(labels), f"'{folder}'")


def _digits() -> DataSet:
    """1,797 grey digits of 8 x 8 pixels with values 0 to 16 (UCI), 360 of them always the test set."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    grey = np.round(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    parts = split(_images("digits", grey, labels, "digits of scikit-learn"), DIGITS_TEST, seed=0)
    return DataSet("digits", CLASSES["digits"], parts.train, parts.validation)


def _images(name: str, pixels: Array, labels: Array, origin: str) -> Images:
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
    return Images(nchw, flat, flips=FLIPS.get(name, pixels.shape[3] == 3))


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
