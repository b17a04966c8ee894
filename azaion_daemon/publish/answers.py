"""Reading the platform's answers, of both generations. Where the contract is open, all known spellings are accepted."""

import base64
import json
from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

_TOKEN_FIELDS = ("token", "accesstoken")
_NAME_FIELDS = ("name", "filename")
_RENEW_BEFORE_END_S = 60.0
_LONGEST_WAIT_S = 86_400.0
_LONGEST_CODE = 10

LOGIN_CODES = {10, 30, 38}
FILE_CODES = {50, 60}
_SENTENCES = {
    10: "it knows no account with the e-mail {email}. Correct AZAION_API_EMAIL, then reload",
    30: "it refuses the password of {email}. Correct AZAION_API_PASSWORD, then reload",
    38: "the account {email} is disabled. Ask an administrator of the platform to enable it, then reload",
    40: "the account {email} is bound to another machine than the one that this daemon says it is ({hardware}). "
    "Set api.hardware to the registered string, or ask an administrator to reset it",
    45: "it does not accept this machine's hardware string ({hardware}). Set api.hardware to the registered one",
    50: "it does not accept the name of the resource. Check publish.name, publish.folder, api.cdn_folder and api.cdn_file",
    60: "it holds no such file. Ask an administrator of the platform to upload it",
}


def sentence(code: int, email: str, hardware: str = "") -> str:
    """What a business error means and what to do about it. `hardware` is what was sent, masked."""
    unknown = f"it refuses with error code {code}, which this daemon does not know. The platform's operators can say what it means"
    return _SENTENCES.get(code, unknown).format(email=email, hardware=hardware or "the request names none")


def fields(document: Any) -> dict[str, Any]:
    """An object's fields by lower-case name; of anything else, none."""
    return {str(key).lower(): value for key, value in document.items()} if isinstance(document, dict) else {}


def error_code(document: Any) -> int | None:
    """The code of a business error."""
    code = fields(document).get("errorcode")
    if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) < _LONGEST_CODE:
        return int(code)
    return code if isinstance(code, int) and not isinstance(code, bool) else None


def token(document: Any) -> str | None:
    """The token in the answer to a login: `token`, `Token`, `AccessToken` or `accessToken`."""
    found = fields(document)
    return next((found[field] for field in _TOKEN_FIELDS if isinstance(found.get(field), str) and found[field]), None)


def names(document: Any) -> list[str] | None:
    """The names in a listing, of plain names or of objects that hold one; None if it is no listing."""
    if not isinstance(document, list):
        return None
    return [name for entry in document if (name := _name(entry))]


def _name(entry: Any) -> str:
    if isinstance(entry, str):
        return entry
    found = fields(entry)
    return next((str(found[field]) for field in _NAME_FIELDS if found.get(field)), "")


def retry_after_s(header: str | None, document: Any, *, date: str | None = None, now: float) -> float:
    """The seconds to wait that a server asks for, by its header or `RetryAfterSeconds`; 0 without, and a day at most.

    A header may name a time instead (RFC 9110, 10.2.3). That is meant by the server's clock, which its `date` header tells; `now` is ours
    (seconds since the epoch), for a server that does not send one.
    """
    for value in (header, fields(document).get("retryafterseconds")):
        if isinstance(value, str | int | float):
            with suppress(ValueError, OverflowError):
                return max(0.0, min(float(value), _LONGEST_WAIT_S))
    until = _http_date(header)
    if until is None:
        return 0.0
    told = _http_date(date)
    return max(0.0, min(until - (now if told is None else told), _LONGEST_WAIT_S))


def _http_date(text: str | None) -> float | None:
    """A date of HTTP in seconds since the epoch; None for anything else."""
    try:
        moment = parsedate_to_datetime(text or "")
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def usable_s(jwt: str, *, now: float) -> float:
    """How long a token may be used, in seconds from its receipt, by its `exp` and `iat` (RFC 7519). It is not verified.

    Without `exp`, or when the clocks disagree so far that it would be over already: until it is refused.
    """
    try:
        payload = jwt.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        lifetime_s = float(claims["exp"]) - float(claims.get("iat", now))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return float("inf")
    if lifetime_s <= 0:
        return float("inf")
    return lifetime_s - min(_RENEW_BEFORE_END_S, lifetime_s / 10)
