"""The stream: what is logged about it."""

from azaion_daemon.logs.event import Event

EVENTS: dict[str, Event] = {
    "stream.connecting": Event("info", "A connection is tried; `attempt` counts since the last success.", ("host", "port", "attempt")),
    "stream.connected": Event("info", "Subscribed at `offset`.", ("stream", "offset", "start")),
    "stream.disconnected": Event(
        "warning",
        "There is no connection; it is tried again after `retry_in_s`.",
        ("why", "retry_in_s", "repeated", "for_s"),
        "Nothing while the broker restarts. Else do what `why` says; `azaion-daemon doctor` tries each step.",
    ),
    "stream.start_outside": Event(
        "warning",
        "stream.start_from is not in the stream: one before `first` means `first`, one after `last` is waited for.",
        ("stream", "start_from", "first", "last"),
        "Correct `stream.start_from` if those messages were wanted; it counts only before the first message.",
    ),
    "stream.begun": Event(
        "info", "The first message of a stream is taken; positions are its offsets and `base`.", ("stream", "offset", "base")
    ),
    "stream.position_unverified": Event(
        "info", "The position was imported, so nothing can be compared with the message there.", ("position", "offset", "first", "last")
    ),
    "stream.mismatch": Event(
        "error",
        "The message at the ledger's position is not the one that was consumed: another or a truncated stream (`kind`, a guess).",
        ("stream", "kind", "why", "position", "offset", "base", "digest", "found", "first", "last", "on_mismatch"),
        "The daemon's last line (`daemon.failed`) says what can be done. Do not delete anything before it is known which stream this is.",
    ),
    "stream.gap_accepted": Event(
        "warning",
        "stream.on_mismatch is `continue`: `missing` offsets are gone, and the next message is taken.",
        ("stream", "missing", "position"),
        "Nothing: it was configured so. Set `stream.on_mismatch` back to `stop`.",
    ),
    "stream.begun_anew": Event(
        "warning",
        "stream.on_mismatch is `continue`: a new stream is taken from its beginning.",
        ("stream", "position"),
        "Nothing: it was configured so. Set `stream.on_mismatch` back to `stop`.",
    ),
}
