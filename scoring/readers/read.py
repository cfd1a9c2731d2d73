"""From a file, or a user's own module, to a `Subject`. A new file format is a function here."""

from __future__ import annotations

from pathlib import Path

from contest.errors import RefusedError
from contest.untrusted.description import CONVERT
from scoring.costs import ParentCosts
from scoring.readers.subject import Subject, subject_of_module

OURS = (".pt", ".safetensors")
SUFFIXES = (*OURS, ".onnx")


def read(path: Path, image_shape: tuple[int, int, int] | None = None) -> Subject:
    """A submission. Raises RefusedError for what the contest does not accept, saying how to convert it.

    image_shape: of the images that it is to run on, for a network that takes images of any size.
    """
    suffix = path.suffix.lower()
    if suffix in OURS:
        return _read_ours(path)
    if suffix == ".onnx":
        from contest.untrusted import check_file
        from scoring.readers.onnx_file import read_onnx

        if path.is_file():
            check_file(path)  # what the file says, before anything is deserialised
        return read_onnx(path, image_shape)
    if suffix in (".pt2", ".pth", ".pkl", ".ckpt", ".bin", ".torchscript"):
        raise RefusedError(f"{path.name}: pickled modules, TorchScript and .pt2 are not accepted; {CONVERT}")
    raise RefusedError(f"{path.name}: '{suffix}' is none of {', '.join(SUFFIXES)}; {CONVERT}")


def _read_ours(path: Path) -> Subject:
    from contest.model_file import load
    from contest.model_file.manifest import is_weight_layer

    network = load(path)
    manifest = network.manifest
    declared = {
        f"{name}.codes": int(module.weight_bits)
        for name, module in network.named_modules()
        if is_weight_layer(module) and hasattr(module, "codes")
    }
    parent = ParentCosts(manifest.parent.weights, manifest.parent.macs) if manifest.parent else None
    claims = {key: value for key, value in manifest.claims.model_dump().items() if value is not None}
    subject = subject_of_module(
        network,
        manifest.image_shape,
        declared_bits=declared,
        parent=parent,
        claims=claims,
        provenance=manifest.provenance,
        prefix="body.",
    )
    logits = subject.graph.shapes[subject.graph.output][-1:]
    if logits != (manifest.classes,):
        raise RefusedError(
            f"the manifest says {manifest.classes} classes, but the network gives {logits[0] if logits else 'no'} "
            "logits for an image; `classes` and the last layer's outputs must agree"
        )
    return subject
