"""What a job's directory keeps of its way: lines that are only added to."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from azaion_daemon.training.history import Attempt, EpochRecord
from azaion_daemon.training.jobs import JobDirectory
from azaion_daemon.training.outcomes import Outcome, Phase

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def epoch(number: int, attempt: int = 1) -> EpochRecord:
    return EpochRecord(epoch=number, attempt=attempt, finished=NOW, seconds=1.5, losses={"box": None, "cls": 0.5}, map50=0.25)


def numbers(job: JobDirectory) -> list[tuple[int, int]]:
    return [(record.epoch, record.attempt) for record in job.read_epochs()]


def test_epochs_are_read_as_they_were_written(tmp_path: Path) -> None:
    job = JobDirectory(tmp_path)
    assert job.read_epochs() == []
    for number in (1, 2):
        job.append_epoch(epoch(number))
    assert job.read_epochs() == [epoch(1), epoch(2)]
    assert len((tmp_path / "epochs.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("torn", [b'{"epoch":3,"att', b"{", b"\0\0\0"])
def test_a_torn_last_line_is_not_read_and_gives_way_to_the_next(tmp_path: Path, torn: bytes) -> None:
    job = JobDirectory(tmp_path)
    job.append_epoch(epoch(1))
    with (tmp_path / "epochs.jsonl").open("ab") as file:
        file.write(torn)
    assert numbers(job) == [(1, 1)]
    job.append_epoch(epoch(2))
    assert numbers(job) == [(1, 1), (2, 1)]


def test_a_line_that_cannot_be_understood_costs_no_other(tmp_path: Path) -> None:
    job = JobDirectory(tmp_path)
    (tmp_path / "epochs.jsonl").write_bytes(b'{"epoch": "one"}\n' + epoch(2).model_dump_json().encode() + b"\n")
    assert numbers(job) == [(2, 1)]


def test_going_on_from_a_checkpoint_forgets_what_came_after_it(tmp_path: Path) -> None:
    job = JobDirectory(tmp_path)
    for number in (1, 2, 3):
        job.append_epoch(epoch(number))
    job.forget_epochs_after(2)
    job.append_epoch(epoch(3, attempt=2))
    assert numbers(job) == [(1, 1), (2, 1), (3, 2)]
    job.forget_epochs_after(0)
    assert numbers(job) == []


def test_attempts_are_kept_beside_them(tmp_path: Path) -> None:
    job = JobDirectory(tmp_path)
    attempt = Attempt(
        number=1, outcome=Outcome.INFRASTRUCTURE, reason="It fell.", phase=Phase.TRAIN, epoch=2, batch_size=4, gpus=(), ended=NOW
    )
    job.append_attempt(attempt)
    job.append_attempt(attempt.model_copy(update={"number": 2, "phase": None, "counts": False}))
    assert [(one.number, one.phase, one.counts) for one in job.read_attempts()] == [(1, Phase.TRAIN, True), (2, None, False)]
