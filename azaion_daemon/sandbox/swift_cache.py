"""A cache for a Swift that is one process: what it asks of memcached, from a dictionary.

The methods and their arguments are those of `swift.common.memcached.MemcacheRing`. Values pass through JSON as they do there, so Swift
sees lists for tuples and text for bytes, and never the same object twice.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_MONTH_S = 30 * 24 * 3600

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class DictionaryCache:
    """Keys with an expiry, in this process. Green threads switch only at I/O, and there is none here, so no lock is needed."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[float, str]] = {}

    def set(
        self,
        key: str,
        value: Any,
        serialize: bool = True,  # noqa: FBT001, FBT002 - Swift's signature
        time: float = 0,
        min_compress_len: int = 0,
        raise_on_error: bool = False,  # noqa: FBT001, FBT002 - Swift's signature
    ) -> None:
        """Keep a value for `time` seconds; 0 is for ever, more than 30 days is a point in time (memcached's rule)."""
        del serialize, min_compress_len, raise_on_error
        if isinstance(value, bytes):
            value = value.decode()
        self._entries[key] = (_expiry(time), json.dumps(value))

    def get(self, key: str, raise_on_error: bool = False) -> Any:  # noqa: FBT001, FBT002 - Swift's signature
        """The value, or None."""
        del raise_on_error
        expires_at, text = self._entries.get(key, (0.0, "null"))
        if expires_at > time.time():
            return json.loads(text)
        self._entries.pop(key, None)
        return None

    def incr(self, key: str, delta: float = 1, time: float = 0) -> int:
        """Add to a number that is never below zero, and return it; a new one has the expiry `time`."""
        value = self.get(key)
        total = max(0, (int(value) if value is not None else 0) + int(delta))
        expires_at = _expiry(time) if value is None else self._entries[key][0]
        self._entries[key] = (expires_at, json.dumps(total))
        return total

    def decr(self, key: str, delta: float = 1, time: float = 0) -> int:
        """Take from a number, down to zero."""
        return self.incr(key, -delta, time)

    def delete(self, key: str, server_key: str | None = None) -> None:
        """Forget a key."""
        del server_key
        self._entries.pop(key, None)

    def set_multi(
        self,
        mapping: Mapping[str, Any],
        server_key: str,
        serialize: bool = True,  # noqa: FBT001, FBT002 - Swift's signature
        time: float = 0,
        min_compress_len: int = 0,
    ) -> None:
        """Keep several values."""
        del server_key
        for key, value in mapping.items():
            self.set(key, value, serialize, time, min_compress_len)

    def get_multi(self, keys: Iterable[str], server_key: str) -> list[Any]:
        """Several values, None for each that is missing."""
        del server_key
        return [self.get(key) for key in keys]


def _expiry(after_s: float) -> float:
    if after_s <= 0:
        return float("inf")
    return after_s if after_s > _MONTH_S else time.time() + after_s


def filter_factory(global_conf: Mapping[str, str], **local_conf: str) -> Callable[[Application], Application]:
    """What paste asks for: a filter that gives every request the one cache of this process."""
    del global_conf, local_conf
    cache = DictionaryCache()

    def cache_filter(application: Application) -> Application:
        def with_cache(environment: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            environment["swift.cache"] = cache
            return application(environment, start_response)

        return with_cache

    return cache_filter
