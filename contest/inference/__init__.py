"""The network as it runs: plain torch modules of integer codes, scales and folded affines, and its file."""

from contest.inference.file import load, read_manifest, save
from contest.inference.folding import fold_batch_norms
from contest.inference.freeze import Network, freeze
from contest.inference.layers import Affine, Conv2d, Linear
from contest.inference.manifest import Manifest

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
]
