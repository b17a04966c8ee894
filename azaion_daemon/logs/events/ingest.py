"""Ingest: what is logged about it."""

from azaion_daemon.logs.event import Event

EVENTS: dict[str, Event] = {
    "ingest.recovered": Event("info", "Annotations that a crash left between ledger and tree were placed.", ("annotations",)),
    "ingest.batch": Event(
        "info",
        "A batch is committed and in the tree.",
        ("messages", "bytes", "annotations", "quarantined", "position", "offset", "seconds"),
    ),
    "ingest.message_quarantined": Event(
        "warning",
        "So many messages (`count`) of a batch, the first at `position`, could not be decoded or applied; they are kept in the quarantine.",
        ("why", "position", "count", "repeated", "for_s"),
        "`azaion-daemon quarantine list`. Have the producer mended, then `azaion-daemon quarantine replay --all`.",
    ),
    "ingest.rejected_transition": Event(
        "warning",
        "Messages asked for what their annotation's state does not allow: `count` in a batch, the first of them by name.",
        ("names", "count", "position", "repeated", "for_s"),
        "Nothing for a few: somebody validated what somebody else had deleted. Many: look at the producer.",
    ),
    "ingest.unknown_role": Event(
        "warning",
        "Roles that the platform's contract does not name; taken for non-validating ones. Each is said once.",
        ("roles", "position"),
        "Compare the producer's version with this one's: there is a new role.",
    ),
    "ingest.image_lost": Event(
        "error",
        "The ledger knows images that no directory holds, `count` of them; these annotations are flagged.",
        ("names", "count"),
        "Restore the named images from a backup into `data/images`, then `azaion-daemon index check --deep --repair`.",
    ),
    "ingest.replayed": Event(
        "info", "A quarantined message was applied after all, as an operator asked.", ("position", "annotations", "refused")
    ),
    "ingest.paused": Event(
        "warning",
        "No more messages are taken until the cause is gone; see `why`.",
        ("why", "repeated", "for_s"),
        "Free space on the disk of the root, or lower `ingest.min_free_disk`. The broker keeps the messages meanwhile.",
    ),
    "ingest.left_unfinished": Event(
        "warning",
        "A stop found no space to finish in; nothing is lost, the next start goes on. See `why`.",
        ("why",),
        "Free some space before the next start.",
    ),
    "ingest.resumed": Event("info", "Messages are taken again."),
}
