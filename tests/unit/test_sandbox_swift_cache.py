import time

import pytest

from azaion_daemon.sandbox.swift_cache import DictionaryCache, filter_factory


def test_values_come_back_as_json_gives_them() -> None:
    cache = DictionaryCache()
    cache.set("tuple", (1.5, ["a"]))
    cache.set("text", b"bytes")
    assert cache.get("tuple") == [1.5, ["a"]]
    assert cache.get("text") == "bytes"
    assert cache.get("none") is None
    cache.delete("text")
    assert cache.get_multi(["text", "tuple"], "server") == [None, [1.5, ["a"]]]


def test_values_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = DictionaryCache()
    now = time.time()
    cache.set("short", 1, time=10)
    cache.set("until", 1, time=now + 20)
    cache.set("forever", 1)
    monkeypatch.setattr(time, "time", lambda: now + 15)
    assert cache.get_multi(["short", "until", "forever"], "server") == [None, 1, 1]
    monkeypatch.setattr(time, "time", lambda: now + 25)
    assert cache.get_multi(["short", "until", "forever"], "server") == [None, None, 1]


def test_numbers_count_and_never_fall_below_zero() -> None:
    cache = DictionaryCache()
    assert [cache.incr("n", 3), cache.incr("n"), cache.decr("n", 9), cache.incr("n", 2)] == [3, 4, 0, 2]


def test_every_request_gets_the_same_cache() -> None:
    seen: list[object] = []

    def application(environment: dict[str, object], _: object) -> list[bytes]:
        seen.append(environment["swift.cache"])
        return []

    filtered = filter_factory({})(application)
    filtered({}, print)
    filtered({}, print)
    assert seen[0] is seen[1]
