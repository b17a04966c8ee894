"""How glibc keeps memory for messages.

By default every image is a fresh mapping that is given back at once, and the page faults cost more than the protocol does: a third of the
messages a second of what can be read with these settings. Fewer arenas keep what the threads hold on to small.
"""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""From glibc's malloc.h."""
MMAP_THRESHOLD_BYTES = 32 << 20
"""The largest that glibc takes. Chunks and images are smaller."""
TRIM_THRESHOLD_BYTES = 64 << 20
ARENAS = 2


def reuse_memory_of_messages() -> bool:
    """Set the allocator of this process; to be called before it has threads. False where it is not glibc's."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    settings = {_M_MMAP_THRESHOLD: MMAP_THRESHOLD_BYTES, _M_TRIM_THRESHOLD: TRIM_THRESHOLD_BYTES, _M_ARENA_MAX: ARENAS}
    results = [mallopt(option, value) for option, value in settings.items()]
    return all(result == 1 for result in results)


def give_back_memory() -> bool:
    """Give the system what is free, in the middle of what is used too: for after work that comes now and then and takes much.

    False where the allocator is not glibc's. Blocking, for some milliseconds.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except AttributeError:
        return False
    trim(0)
    return True
