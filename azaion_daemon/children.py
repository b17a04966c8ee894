"""What the processes that the daemon starts inherit of its environment: it may hold passwords, which are nobody else's business.

In a container, or where somebody exports `.env` into a shell, the daemon's own environment has every secret, and what a child has can be
read in /proc by whatever makes the child do its will.
"""

import os
from collections.abc import Collection, Mapping

_ANY = frozenset({"HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "PYTHONPATH", "TMPDIR", "TZ", "USER"})


def inherited(
    environment: Mapping[str, str] = os.environ, *, prefixes: Collection[str] = (), without: Collection[str] = ()
) -> dict[str, str]:
    """What a child gets: a few well-known variables, those of the locale, and those that begin so."""
    wanted = ("LC_", *prefixes)
    return {name: value for name, value in environment.items() if (name in _ANY or name.startswith(wanted)) and name not in without}
