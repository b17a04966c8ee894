"""Both generations of the platform's answers, in every known spelling."""

import base64
import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azaion_daemon.publish import answers
from azaion_daemon.publish.platform import RetryRule

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=12,
)


def jwt(**claims: Any) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{payload}.signature"


@pytest.mark.parametrize("field", ["token", "Token", "AccessToken", "accessToken"])
def test_every_spelling_of_the_token_is_read(field: str) -> None:
    assert answers.token({field: "abc", "RefreshToken": "other"}) == "abc"


@pytest.mark.parametrize("document", [None, [], "abc", {}, {"token": ""}, {"token": 5}, {"RefreshToken": "r"}])
def test_an_answer_without_a_token_has_none(document: Any) -> None:
    assert answers.token(document) is None


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"exp": 5000, "iat": 1400}, 3540),  # by the server's own clock
        ({"exp": 4600}, 3540),
        ({"exp": 1100}, 90),  # short ones are used for nine tenths
        ({"exp": 900}, math.inf),  # our clock is wrong, or theirs
        ({"sub": "x"}, math.inf),
        ({"exp": "never"}, math.inf),
    ],
)
def test_a_token_is_renewed_before_it_ends(claims: dict[str, Any], expected: float) -> None:
    assert answers.usable_s(jwt(**claims), now=1000) == expected


@given(st.text())
def test_any_token_can_be_used(token: str) -> None:
    assert answers.usable_s(token, now=0) > 0


@given(JSON, st.none() | st.text())
def test_no_answer_is_too_odd(document: Any, header: str | None) -> None:
    answers.token(document)
    answers.names(document)
    answers.error_code(document)
    assert 0 <= answers.retry_after_s(header, document, date=header, now=0) < math.inf


@pytest.mark.parametrize(
    ("header", "document", "expected"),
    [
        ("7", None, 7),
        (None, {"RetryAfterSeconds": 12}, 12),
        ("Wed, 21 Oct 2026 07:28:00 GMT", {"retryAfterSeconds": "3"}, 3),
        (None, None, 0),
        ("-5", None, 0),
        ("99999999999", None, 86_400),
        ("soon", None, 0),
    ],
)
def test_the_wait_that_a_server_asks_for(header: str | None, document: Any, expected: float) -> None:
    assert answers.retry_after_s(header, document, now=0) == expected


@pytest.mark.parametrize(
    ("header", "date", "expected"),
    [
        ("Wed, 21 Oct 2026 07:28:00 GMT", "Wed, 21 Oct 2026 07:27:30 GMT", 30),  # by the server's clock, whatever ours says
        ("Wed, 21 Oct 2026 07:28:00 GMT", None, 3600),
        ("Wed, 21 Oct 2026 07:28:00 GMT", "Wed, 21 Oct 2026 09:00:00 GMT", 0),
        ("Wed, 21 Oct 2099 07:28:00 GMT", None, 86_400),
    ],
)
def test_a_time_to_come_back_at_is_a_wait(header: str, date: str | None, expected: float) -> None:
    ours = datetime(2026, 10, 21, 6, 28, tzinfo=UTC).timestamp()
    assert answers.retry_after_s(header, None, date=date, now=ours) == expected


@pytest.mark.parametrize("entry", ["a.small", {"Name": "a.small", "Size": 3}, {"fileName": "a.small"}])
def test_listings_of_names_and_of_objects(entry: Any) -> None:
    assert answers.names([entry]) == ["a.small"]


@pytest.mark.parametrize("code", [10, 30, 38, 40, 45, 50, 60, 999])
def test_every_error_code_is_a_sentence(code: int) -> None:
    sentence = answers.sentence(code, "u@x.io", "CPU: x")
    assert "{" not in sentence
    assert len(sentence) > 30


def test_waits_grow_to_a_cap_and_are_no_shorter_than_asked() -> None:
    rule = RetryRule(first_s=1, most_s=8)
    for attempt, most in enumerate([1, 2, 4, 8, 8, 8], start=1):
        assert most / 2 <= rule.wait_s(attempt, 0) <= most
    assert rule.wait_s(1, 5) == 5
