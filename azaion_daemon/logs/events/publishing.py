"""Publishing: what is logged about it."""

from azaion_daemon.logs.event import Event

EVENTS: dict[str, Event] = {
    "release.started": Event("info", "A model is being encrypted and uploaded.", ("serial", "model", "model_sha256", "resumed")),
    "release.part_uploaded": Event("info", "A part is stored and verified.", ("serial", "part", "size")),
    "release.part_gone": Event(
        "warning",
        "A stored part of a release under way is not there any more, or not here: it is uploaded anew.",
        ("serial", "part"),
        "Nothing: it is uploaded again. Ask who removes objects from the bucket if it comes again.",
    ),
    "release.verified": Event("info", "What consumers download was joined, decrypted and compared.", ("serial", "small_verified", "ran")),
    "release.manifest": Event(
        "info",
        "The signed manifest of a release is stored; `key` is the id of the public key to verify it with.",
        ("serial", "name", "key"),
    ),
    "release.manifest_unknown": Event(
        "warning",
        "A manifest in the object store was not signed with our key: its serial number counts, unless it is absurd.",
        ("name", "serial", "key"),
        "Find out who publishes into this bucket: another daemon, or one with a signing key that was lost.",
    ),
    "release.serial_raised": Event(
        "warning",
        "A release was given another serial number, since its own is not above what was published.",
        ("serial", "to", "why"),
        "Nothing. After a restored backup that is as it should be.",
    ),
    "release.rolled_back": Event(
        "warning",
        "An operator has an older model published again, because of `why`; it is the current one now.",
        ("serial", "to", "model", "why"),
        "Nothing: it was asked for.",
    ),
    "release.published": Event("info", "A release is complete.", ("serial", "model_sha256")),
    "release.waiting": Event(
        "warning",
        "A release waits for what `why` says.",
        ("serial", "why", "attempts", "retry_in_s", "repeated", "for_s"),
        "Nothing for an outage: it is tried for ever. With `retry_in_s` null: do what `why` says, then `systemctl reload azaion-daemon`.",
    ),
    "release.not_run": Event(
        "warning",
        "What consumers get could not be run here, see `why`; it was compared byte by byte all the same.",
        ("serial", "part", "why"),
        "Mend what `why` says, mostly an ONNX Runtime that is missing; the release is whole.",
    ),
    "release.put_back": Event(
        "error",
        "The release `failed` did not verify after the swap, see `why`; consumers have `serial` again.",
        ("serial", "failed", "why"),
        "Look at the store and the network: what was read is not what was written. `azaion-daemon model verify`; it is tried again.",
    ),
    "release.taken_back": Event(
        "error",
        "The first release did not verify after the swap, see `why`; consumers have none again if `removed`.",
        ("serial", "why", "removed"),
        "Look at the store and the network: what was read is not what was written. It is tried again.",
    ),
    "release.not_put_back": Event(
        "error",
        "What did not verify is still what consumers get; the next release replaces it. See `why`.",
        ("why",),
        "`azaion-daemon model verify` says what consumers get. Mend what `why` says; the next attempt replaces it.",
    ),
    "release.no_space": Event(
        "warning",
        "A release is done, but the ledger has no space for that; it is recorded once there is some.",
        ("why", "repeated", "for_s"),
        "Free space on the disk of the root.",
    ),
    "platform.login": Event("info", "A login at the platform succeeded.", ("email",)),
    "platform.login_failed": Event(
        "warning",
        "After a reload that changed `api` the login did not succeed; see `why`.",
        ("why",),
        "Correct what it names, then reload; when the platform was away, the next call tries again by itself.",
    ),
    "platform.retry": Event(
        "warning",
        "A call to the platform failed and is tried again.",
        ("call", "why", "attempt", "retry_in_s", "repeated", "for_s"),
        "Nothing for an outage. Else do what `why` says.",
    ),
    "cdn.credentials": Event("info", "Credentials of the CDN were obtained.", ("source", "host", "uploader")),
    "cdn.upload_aborted": Event(
        "info", "An upload that a killed process had left was removed from the store, if `aborted`.", ("key", "aborted")
    ),
    "cdn.uploads_left": Event(
        "info", "At the start, noted uploads could not be aborted, see `why`; the next release attempt does it.", ("why",)
    ),
    "cdn.uploads_unlisted": Event(
        "info", "The uploader may not list uploads; of those that were left, only noted ones are removed.", ("bucket",)
    ),
    "cdn.removed": Event("info", "A versioned part beyond `publish.keep_versions` was removed from the store.", ("key",)),
    "cdn.not_removed": Event(
        "info", "An old versioned part stays in the store: the uploader may not remove it, or see `why`.", ("key", "why")
    ),
    "hardware.computed": Event("info", "The hardware string was computed and is kept from now on.", ("kept_in",)),
}
