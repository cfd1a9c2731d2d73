"""The network as it runs: plain torch modules of integer codes, scales and folded affines, and its file."""

from contest.model_file.file import load, read_manifest, save
from contest.model_file.freeze import Network, fold_batch_norms, freeze, thaw
from contest.model_file.manifest import Affine, Conv2d, Linear, Manifest

__all__ = [
    "Affine",
    "Conv2d",
    "Linear",
    "Manifest",
    "Network",
    "fold_batch_norms",
    "freeze",
    "load",
    "read_manifest",
    "save",
    "thaw",
]
