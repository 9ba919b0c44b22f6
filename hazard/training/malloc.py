"""Memory that a training step frees is kept for the next one."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of <malloc.h>
_MAX_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tells glibc to keep large blocks of this process instead of giving them back; False where there is no glibc.

    By default each training step asks the kernel for the same tens of megabytes anew, page by page: a third of the time
    of a wide LSTM in bf16. Changes the whole process, so that commands call it and the library does not.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, _MAX_INT))
