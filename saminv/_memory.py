"""Memory of the process on Linux: what is freed stays with it.

The C library gives blocks above 32 MB back to the system when they are freed, and the next one costs a page fault for
every 4 KB. A step at 256x256 or more frees and takes many of them.
"""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
LARGEST = 2**31 - 1


def keep_memory() -> bool:
    """Let the process keep memory that it frees; returns whether the C library could be told (glibc on Linux).

    It holds for the whole process, so commands call it, and the library itself does not.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, LARGEST))
