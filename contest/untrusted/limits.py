"""Caps on files from strangers, checked before anything is deserialised."""

from __future__ import annotations

MAX_FILE_BYTES = 256_000_000
MAX_TENSORS = 10_000
MAX_ELEMENTS = 200_000_000
"""Of all tensors of a file together."""
MAX_DIMENSIONS = 8
MAX_NAME = 300
MAX_PICKLE_BYTES = 8_000_000
MAX_PICKLE_STEPS = 1_000_000
MAX_HEADER_BYTES = 8_000_000
MAX_JSON_DEPTH = 16
MAX_NODES = 20_000
MAX_ATTRIBUTES = 64
"""Of one ONNX node."""
MAX_MACS = 20_000_000_000
"""Of one forward pass on one image: 36 times ResNet18's."""

CONVERT = (
    "weights are scored with the code of their network, `contest score FILE --arch package.module:factory`, or become "
    "a file of their own by `contest convert --arch package.module:factory FILE out.onnx`"
)
FROM_KERAS = (
    "convert it with tf2onnx: `python -m tf2onnx.convert --keras model.h5 --opset 17 --inputs-as-nchw INPUT --output "
    "model.onnx` (`--saved-model FOLDER` or `--tflite FILE` in place of `--keras`), then `contest score model.onnx`"
)
