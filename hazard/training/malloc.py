"""A setting of glibc's malloc that keeps the memory freed by one training step for the next one."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # from <malloc.h>
_MAX_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks in this process; return False if there is no glibc.

    By default each training step requests the same tens of megabytes from the kernel again, page by page. This takes a
    third of the time of a wide LSTM in bf16. The setting affects the whole process, so only commands call this
    function.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, _MAX_INT))
