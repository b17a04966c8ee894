"""What the demo says of the gate, whichever way it goes."""

from pathlib import Path
from typing import Any

import pytest

from azaion_daemon.sandbox.looking import decision, ruling

CHECKS = [{"name": "mAP50-95", "value": 0.8123, "limit": 0.79, "ok": True}, {"name": "Car", "value": -0.2, "limit": -0.1, "ok": False}]


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (
            {"state": "released", "verdict": {"reason": "it is better", "checks": CHECKS}},
            [
                "accepted: it is better",
                "  mAP50-95: 0.8123, at least 0.79 is asked for: met",
                "  Car: -0.2, at least -0.1 is asked for: not met",
            ],
        ),
        ({"state": "rejected", "verdict": {"reason": "it is worse", "checks": []}}, ["rejected: it is worse"]),
        ({"state": "held", "why": "too few images", "verdict": None}, ["held: too few images"]),
        ({"state": "releasing"}, ["accepted: no reason is given"]),
    ],
)
def test_the_sentence_comes_first_and_then_the_numbers(tmp_path: Path, job: dict[str, Any], said: list[str]) -> None:
    assert list(ruling(tmp_path, {"id": "J", **job})) == said
    assert decision(job) == said[0].split(":")[0]


def test_it_says_where_the_report_is(tmp_path: Path) -> None:
    report = tmp_path / "state" / "jobs" / "J" / "report.html"
    report.parent.mkdir(parents=True)
    report.write_text("<html>")
    assert list(ruling(tmp_path, {"id": "J", "state": "held", "why": "few"}))[-1] == f"the report: {report}"
