"""The worker's last phase: whatever goes wrong in it, there is a page, and the job goes on."""

import sys
from pathlib import Path

import pytest

from azaion_daemon.training.evaluation import Evaluated
from azaion_daemon.training.jobs import JobDirectory, JobSpec
from azaion_daemon.training.outcomes import Phase
from azaion_daemon.training.report_verdict import stamped
from azaion_daemon.training.worker import report
from azaion_daemon.training.worker.progress import ProgressReport
from tests.reports import SCRIPT, metrics, spec


@pytest.fixture
def given(tmp_path: Path) -> JobSpec:
    return spec(data_yaml=tmp_path / "dataset" / "data.yaml", dataset_name=SCRIPT)


@pytest.fixture
def job(tmp_path: Path, given: JobSpec) -> JobDirectory:
    job = JobDirectory(tmp_path / "job")
    job.create(given)
    job.mark(Phase.EVALUATE, 1.0, Evaluated(metrics=metrics(("car",), 0.437)).model_dump(mode="json"))
    return job


def test_a_page_that_cannot_be_made_is_replaced_by_the_figures_and_the_error(
    job: JobDirectory, given: JobSpec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "azaion_daemon.training.worker.reporting.page", None)  # as where jinja2 is missing
    details = report.run(job, given, ProgressReport(job, 1))
    assert "ModuleNotFoundError" in str(details["error"])
    page = job.report.read_text()
    assert "mAP50-95 0.437" in page
    assert "ModuleNotFoundError" in page
    assert "<script" not in page
    assert not stamped(job)  # it has a place for the verdict all the same
    assert "Traceback" in capsys.readouterr().err


def test_after_two_kills_it_is_made_without_predictions(job: JobDirectory, given: JobSpec) -> None:
    job.reporting.write_bytes(b"..")
    assert report.run(job, given, ProgressReport(job, 3)) == {}
    page = job.report.read_text()
    assert "no image was looked at once more" in page
    assert "The dataset has no dataset.json" in page
    assert not job.reporting.exists()  # made once more, after another evaluation, it has them again
