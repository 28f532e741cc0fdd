"""Keep freed memory for the next step instead of giving it back to the system.

Activations are allocated and freed in every step. glibc hands blocks of their size back to the kernel each time, and
every page of the next block is a fault and a zeroing again; on two cores that is a tenth to a fifth of a step.

Source: glibc manual, section 3.2.3.13 "Malloc Tunable Parameters".
"""

import ctypes

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h
_NEVER, _PAD = 2**31 - 1, 1 << 28


def keep_freed_memory() -> bool:
    """Ask the C library of this process to; returns whether it can (glibc)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # other C libraries, other systems
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, _PAD))
    return all(mallopt(name, value) == 1 for name, value in settings)
