"""Memory that stays with the process."""

from __future__ import annotations

import ctypes
import functools
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


@functools.cache
def keep_memory() -> bool:
    """Tells glibc's malloc to keep freed blocks instead of giving each large one back to the kernel.

    A training step, or a batch of images that is scored, frees and asks for the same large activations again; otherwise
    every one of their pages is faulted in and zeroed anew at each step, which can cost as much as the step itself. Once
    a process; false where the C library is another.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    # Some versions of glibc refuse an mmap threshold above 32 MiB.
    kept = mallopt(_M_MMAP_THRESHOLD, 1 << 30) or mallopt(_M_MMAP_THRESHOLD, 1 << 25)
    return bool(kept) and bool(mallopt(_M_TRIM_THRESHOLD, 1 << 30))
