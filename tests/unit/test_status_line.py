"""The one sentence that `systemctl status` shows."""

from typing import Any

import pytest

from azaion_daemon.ops.status_line import status_line

RUNNING: dict[str, Any] = {
    "state": "running",
    "health": {"ok": True, "ailing": [], "parts": {}},
    "config": {"last_reload": None},
    "stream": {"connected": True, "why": None, "paused": None, "position": 1234},
    "training": {"jobs": [{"id": "J1", "state": "released", "dataset": "azaion-2026-01-01"}]},
}


def changed(**sections: dict[str, Any]) -> dict[str, Any]:
    return {**RUNNING, **{name: {**RUNNING[name], **values} for name, values in sections.items()}}


def job(**values: Any) -> dict[str, Any]:
    return changed(training={"jobs": [{"id": "J2", "state": "running", "dataset": "azaion-2026-03-01", **values}]})


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        (RUNNING, "Running; position 1,234"),
        (changed(stream={"position": None}), "Running"),
        (changed(stream={"connected": False}), "Not connected yet; position 1,234"),
        (
            changed(stream={"connected": False, "why": "no connection to h:5552"}),
            "Not connected: no connection to h:5552, trying again; position 1,234",
        ),
        (changed(stream={"paused": "0 bytes are free"}), "Paused: 0 bytes are free; position 1,234"),
        ({**RUNNING, "state": "stopping"}, "Stopping; position 1,234"),
        (changed(config={"last_reload": {"ok": False}}), "Running; the last reload failed; position 1,234"),
        (changed(config={"last_reload": {"ok": True}}), "Running; position 1,234"),
        (
            changed(health={"ailing": [{"part": "ledger", "what": "commit_batch", "for_s": 700.0}]}),
            "Running; ledger has not got on for 11 min 40 s (commit_batch); position 1,234",
        ),
        (
            job(progress={"phase": "train", "epoch": 3, "epochs": 120}),
            "Running; position 1,234; training azaion-2026-03-01 epoch 3 of 120",
        ),
        (job(progress={"phase": "export", "epoch": 120, "epochs": 120}), "Running; position 1,234; training azaion-2026-03-01: export"),
        (job(dataset=None, progress={"phase": "prepare", "epoch": 0, "epochs": 1}), "Running; position 1,234; training job J2: prepare"),
        (job(state="queued", waits_for="all GPUs are busy"), "Running; position 1,234; job J2 is queued (all GPUs are busy)"),
        (job(state="forming"), "Running; position 1,234; job J2 is forming"),
    ],
)
def test_the_sentence_says_what_is_wrong_and_how_far_everything_is(document: dict[str, Any], sentence: str) -> None:
    assert status_line(document) == sentence
