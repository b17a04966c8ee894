"""What this process takes of the machine, for the status: what grows there without end is a leak."""

import os

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resources(tasks: int) -> dict[str, int | None]:
    """Threads, open descriptors and resident memory, beside the event loop's `tasks`. None where the kernel does not say. Blocking."""
    try:
        threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208 - names alone, once a second
        descriptors = len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 - the same; less that of the listing itself
        with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - a third of the time, once a second
            rss_bytes = int(statm.read().split()[1]) * _PAGE_BYTES
    except OSError:  # no /proc, or no descriptor left to look with
        return {"tasks": tasks, "threads": None, "descriptors": None, "rss_bytes": None}
    return {"tasks": tasks, "threads": threads, "descriptors": descriptors, "rss_bytes": rss_bytes}
