"""What is known of each data set by its name."""

from __future__ import annotations

TORCHVISION = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "mnist": "MNIST"}


FLIPS = {"cifar10": True, "cifar100": True, "mnist": False, "digits": False}


CLASSES = {
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "mnist": tuple("0123456789"),
    "digits": tuple("0123456789"),
}
