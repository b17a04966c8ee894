"""The ledger's verdicts in the reports, whatever was missed before."""

import asyncio
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from azaion_daemon.conducting.stamping import stamp_report, stamp_reports
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.records import Job
from azaion_daemon.training.gate import Check
from azaion_daemon.training.jobs import JobDirectory, JobResult
from azaion_daemon.training.outcomes import Outcome
from azaion_daemon.training.report_verdict import pending
from tests.unit.test_triggering import layout, settings_of, site

__all__ = ["layout"]

GATE: dict[str, Any] = {
    "decision": "rejected", "reason": "truck drops", "by": "gate", "time": 1_772_366_400.0,
    "checks": [asdict(Check("mAP50-95", 0.4, 0.5, ok=False))],
}  # fmt: skip
OPERATOR: dict[str, Any] = {
    "decision": "accepted", "reason": "the labels were wrong", "by": "operator", "time": 1_772_370_000.0, "checks": [], "before": GATE,
}  # fmt: skip


def job(verdict: dict[str, Any] | None) -> Job:
    return Job("job-1", "rejected", "because", 0.0, 0.0, dataset="azaion-2026-03-01", verdict=verdict)


@pytest.fixture
def pages(layout: Layout) -> tuple[Path, Path]:
    """The report, and the copy beside the model that was kept."""
    page, copy = JobDirectory(layout.jobs / "job-1").report, layout.models / "azaion-2026-03-01" / "report.html"
    for path in (page, copy):
        path.parent.mkdir(parents=True)
        path.write_text(pending(trial=False))
    return page, copy


async def test_all_that_was_missed_is_made_up_for_in_its_order(layout: Layout, pages: tuple[Path, Path]) -> None:
    await stamp_reports(layout, [job(None), job(OPERATOR)])
    for page in pages:
        text = page.read_text()
        assert text.index("The labels were wrong.") < text.index("by an operator, 2026-03-01 13:00:00 UTC") < text.index("Truck drops.")
        assert "by the gate, 2026-03-01 12:00:00 UTC" in text
        assert "Not judged yet" not in text


async def test_it_is_the_same_when_each_came_at_its_time(layout: Layout, pages: tuple[Path, Path]) -> None:
    for verdict in (GATE, OPERATOR, OPERATOR):
        await stamp_report(layout, job(verdict))
    step_by_step = [page.read_bytes() for page in pages]
    for page in pages:
        page.write_text(pending(trial=False))
    await stamp_report(layout, job(OPERATOR))
    assert [page.read_bytes() for page in pages] == step_by_step


async def test_the_report_of_another_model_under_the_same_name_is_left_alone(layout: Layout, pages: tuple[Path, Path]) -> None:
    page, others = pages
    result = JobResult(outcome=Outcome.DONE, settings={"id": "job-0"}, finished=datetime.now(UTC))
    JobDirectory(others.parent).write_result(result)
    own = layout.models / "azaion-2026-03-01-job-1" / "report.html"
    own.parent.mkdir()
    own.write_text(pending(trial=False))
    await stamp_report(layout, job(GATE))
    assert [path.read_text().count("Truck drops.") for path in (page, own, others)] == [1, 1, 0]


async def test_a_missing_report_is_said_and_a_removed_job_is_not(layout: Layout) -> None:
    with capture_logs() as logs:
        await stamp_report(layout, job(GATE))
    assert logs == []
    (layout.jobs / "job-1").mkdir(parents=True)
    with capture_logs() as logs:
        await stamp_report(layout, job(GATE))
    assert [one["event"] for one in logs] == ["report.not_stamped"]


async def test_a_report_that_cannot_be_written_fails_nothing(layout: Layout, pages: tuple[Path, Path]) -> None:
    pages[0].unlink()
    pages[0].mkdir()
    with capture_logs() as logs:
        await stamp_report(layout, job(GATE))
    assert [(one["event"], one["job"]) for one in logs] == [("report.not_stamped", "job-1")]


async def test_the_gates_verdict_is_in_the_report_and_in_the_copy_beside_the_model(layout: Layout) -> None:
    async with site(layout, settings_of(layout.root)) as one:
        await one.change()
        (accepted,) = await one.until_states("releasing")
        page = JobDirectory(layout.jobs / accepted.id).report
        stamped = page.read_text()
        assert 'class="verdict accepted"' in stamped
        assert (layout.models / str(accepted.dataset) / page.name).read_text() == stamped
    page.write_text(pending(trial=False))  # as if a kill had come before it was stamped
    async with site(layout, settings_of(layout.root)), asyncio.timeout(30):
        while page.read_text() != stamped:  # noqa: ASYNC110 - a file tells nobody that it was written
            await asyncio.sleep(0.01)
