"""The verdict in a report: escaped, newest first, the same whenever it is stamped once more."""

import errno
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from azaion_daemon.errors import DiskFullError
from azaion_daemon.training.gate import Check, Decision, Verdict
from azaion_daemon.training.jobs import JobDirectory
from azaion_daemon.training.report_verdict import pending, stamp, stamp_page, stamped

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
REJECTED = Verdict(Decision.REJECTED, "truck drops from 0.930 to 0.785", (Check("mAP50-95 of truck", -0.145, -0.1, ok=False),))
ACCEPTED = Verdict(Decision.ACCEPTED, "an operator promoted it")


@pytest.fixture
def job(tmp_path: Path) -> JobDirectory:
    job = JobDirectory(tmp_path)
    job.report.write_bytes(f"<p>before\r\n</p>{pending(trial=False)}<p>after</p>".encode())
    return job


def test_a_verdict_takes_the_place_of_its_absence(job: JobDirectory) -> None:
    assert not stamped(job)
    assert stamp(job, REJECTED, by="the gate", at=AT, reason=None)
    assert stamped(job)
    page = job.report.read_bytes().decode()
    assert page.startswith("<p>before\r\n</p>")
    assert page.endswith("<p>after</p>")
    assert "Not judged yet" not in page
    assert "Truck drops from 0.930 to 0.785." in page
    assert "by the gate, 2026-03-01 12:00:00 UTC" in page
    assert "\N{MINUS SIGN}0.145</td><td>\N{MINUS SIGN}0.100" in page


def test_the_same_verdict_once_more_changes_nothing_also_after_a_later_one(job: JobDirectory) -> None:
    stamp(job, REJECTED, by="the gate", at=AT, reason=None)
    stamp(job, ACCEPTED, by="anna", at=AT - timedelta(hours=1), reason="the labels were wrong")  # the clock went back
    page, written = job.report.read_bytes(), job.report.stat()
    stamp(job, REJECTED, by="the gate", at=AT, reason=None)
    stamp(job, ACCEPTED, by="anna", at=AT - timedelta(hours=1), reason="the labels were wrong")
    assert job.report.read_bytes() == page
    assert job.report.stat().st_ino == written.st_ino  # not even written
    assert page.index(b"the labels were wrong") < page.index(b"Truck drops")


def test_nothing_that_is_said_can_end_the_block(job: JobDirectory) -> None:
    evil = '<!--/verdicts--><!--verdict--><script>"&'
    stamp(job, Verdict(Decision.HELD, evil, (Check(evil, 3, 50, ok=False, counts=True),)), by=evil, at=AT, reason=evil)
    stamp(job, ACCEPTED, by="anna", at=AT, reason=None)
    page = job.report.read_text()
    assert page.count("<!--/verdicts-->") == 1
    assert page.count("<!--verdict-->") == 2
    assert "<script" not in page
    assert "<td>3</td><td>50</td>" in page  # counts, not shares
    assert page.endswith("<p>after</p>")


@pytest.mark.parametrize("content", [None, b"", b"<html>of another release</html>", b"<!--verdicts-->torn", b"\xff\xfe"])
def test_without_a_place_for_it_nothing_is_done(tmp_path: Path, content: bytes | None) -> None:
    job = JobDirectory(tmp_path)
    if content is not None:
        job.report.write_bytes(content)
    assert not stamp(job, ACCEPTED, by="anna", at=AT, reason=None)
    assert stamped(job)  # there is nothing to catch up on
    assert (job.report.read_bytes() if job.report.exists() else None) == content


def test_a_full_disk_leaves_the_page_before(job: JobDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    page = job.report.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DiskFullError, match="verdict"):
        stamp(job, ACCEPTED, by="anna", at=AT, reason=None)
    assert job.report.read_bytes() == page
    assert [path.name for path in job.path.iterdir()] == ["report.html"]


def test_a_copy_beside_a_kept_model_is_stamped_the_same_way(job: JobDirectory, tmp_path: Path) -> None:
    copy = tmp_path / "copy.html"
    copy.write_bytes(job.report.read_bytes())
    assert stamp_page(copy, ACCEPTED, by="anna", at=AT, reason=None)
    stamp(job, ACCEPTED, by="anna", at=AT, reason=None)
    assert copy.read_bytes() == job.report.read_bytes()


def test_a_trial_is_not_judged() -> None:
    assert "never judged" in pending(trial=True)
