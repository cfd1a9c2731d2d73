"""The gate: every file from a stranger is looked at here before anything deserialises it.

Standard library only and quick, so that whoever opens a file can afford it: the isolated child calls `check_file`
before it reads a submission; `contest.model_file.load` and the ONNX reader may call it too, for files that are opened
in the process that asks. The gate only ever refuses: what passes is still opened with `weights_only=True` alone.
"""

from contest.untrusted.check import check_bytes, check_file, whole_file
from contest.untrusted.description import MAX_FILE_BYTES, MAX_MACS, Description, TensorInfo

__all__ = ["MAX_FILE_BYTES", "MAX_MACS", "Description", "TensorInfo", "check_bytes", "check_file", "whole_file"]
