"""The verdicts of the ledger in the reports of jobs: when one is recorded, and at a start for those that a kill kept from their pages."""

import asyncio
from collections.abc import Iterable

from azaion_daemon.errors import StorageError
from azaion_daemon.logs import get_logger
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.records import Job
from azaion_daemon.training.jobs import JobDirectory
from azaion_daemon.training.keeping import kept_directory
from azaion_daemon.training.report_verdict import stamp_recorded

log = get_logger(__name__)


async def stamp_report(layout: Layout, job: Job) -> None:
    """Put what is recorded of a job's verdict into its report and into the copy beside its model. Again is the same as once.

    It never fails, since a page is not worth a model: what cannot be written is logged, and written after the next start.
    """
    await asyncio.to_thread(_stamp, layout, job)


async def stamp_reports(layout: Layout, jobs: Iterable[Job]) -> None:
    """As `stamp_report`, for all of them."""
    for job in jobs:
        await stamp_report(layout, job)


def _stamp(layout: Layout, job: Job) -> None:
    if job.verdict is None:
        return
    page = JobDirectory(layout.jobs / job.id).report
    try:
        copy = kept_directory(job, layout) / page.name
        there = stamp_recorded(page, job.verdict)
        stamp_recorded(copy, job.verdict)
    except (StorageError, OSError) as error:
        log.warning("report.not_stamped", job=job.id, why=str(error))
        return
    if not there and page.parent.is_dir():
        log.warning("report.not_stamped", job=job.id, why=f"there is no report in {page.parent}")
