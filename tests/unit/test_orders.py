"""What the status says of jobs."""

from azaion_daemon.conducting.conductor import UnderWay
from azaion_daemon.orders import jobs_document
from azaion_daemon.store.records import Job


def test_the_last_jobs_are_said_and_older_ones_that_are_not_over() -> None:
    states = {0: "held", 1: "released", 2: "running"}
    jobs = [Job(f"J{number}", states.get(number, "rejected"), "", float(number), float(number)) for number in range(20)]
    said = jobs_document(jobs, [UnderWay(jobs[2], None, "a GPU")])
    assert [one["id"] for one in said] == ["J0", "J2", *(f"J{number}" for number in range(10, 20))]
    assert [one.get("waits_for") for one in said[:3]] == [None, "a GPU", None]
