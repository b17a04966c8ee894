"""Several jobs, each on its way: which run beside each other, how often each is tried, and what becomes of its model."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from azaion_daemon.conducting.judging import Judge
from azaion_daemon.errors import OperatorError
from azaion_daemon.settings import Settings
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import LedgerThread
from azaion_daemon.store.records import Job
from azaion_daemon.training.gate import Check, Decision, Verdict
from azaion_daemon.training.history import Attempt
from azaion_daemon.training.jobs import Identity, JobDirectory, JobResult, JobSpec
from azaion_daemon.training.outcomes import Outcome
from azaion_daemon.training.processes import boot_id
from azaion_daemon.training.retry import Again, GiveUp
from tests.unit.test_triggering import NIGHT, Site, layout, settings_of, site

__all__ = ["layout"]

ACCEPTED = Verdict(Decision.ACCEPTED, "better", (Check("mAP50-95", 0.5, 0.4, ok=True),))
HELD = Verdict(Decision.HELD, "too few images to compare on")
REJECTED = Verdict(Decision.REJECTED, "worse")


class Scripted(Judge):
    """Decides as it is told; notes what it is asked, and which model is the current one then."""

    def __init__(self, call: LedgerThread, verdicts: Sequence[Verdict | None], asked: list[str]) -> None:
        self._call = call
        self.verdicts = [*verdicts]
        self.asked = asked

    async def prepare(self, directory: JobDirectory, spec: JobSpec) -> None:
        self.asked.append("prepare")

    async def verdict(self, directory: JobDirectory, result: JobResult) -> Verdict | None:
        models = await self._call(self._call.ledger.models)
        self.asked.append(next((str(model.job) for model in models if model.current), "no model"))
        return self.verdicts.pop(0)


def judging(*verdicts: Verdict | None, asked: list[str] | None = None) -> Callable[[LedgerThread], Judge]:
    notes: list[str] = [] if asked is None else asked
    return lambda call: Scripted(call, verdicts, notes)


def directory_of(layout: Layout, job: Job) -> JobDirectory:
    return JobDirectory(layout.jobs / job.id)


def parallel(layout: Layout, number: int) -> Settings:
    return settings_of(layout.root, training={"max_parallel_jobs": number})


async def until_running(one: Site, number: int) -> None:
    async def running() -> bool:
        return len(one.worker.specs) == number

    await one.until(running)


# Beside each other


async def test_what_was_asked_for_runs_beside_a_triggered_job_and_two_triggered_ones_never_do(layout: Layout) -> None:
    async with site(layout, parallel(layout, 3)) as one:
        one.worker.may_end.clear()
        await one.change()
        await until_running(one, 1)
        await one.change()
        await one.until_why("is under way")
        await one.ask()
        await until_running(one, 2)
        assert [(way.job.state, way.job.asked) for way in one.conductor.under_way] == [("running", False), ("running", True)]
        await one.change()
        await one.until_why("are under way")
        assert len(await one.jobs()) == 2
        one.worker.may_end.set()
        await one.until_states("releasing", "releasing", "releasing")


async def test_with_no_room_beside_it_follows(layout: Layout) -> None:
    async with site(layout, parallel(layout, 1)) as one:
        one.worker.may_end.clear()
        await one.change()
        await until_running(one, 1)
        await one.ask()
        await one.until_why("what was asked for follows")
        one.reconfigure(parallel(layout, 2))  # and a reload makes room
        await until_running(one, 2)
        one.worker.may_end.set()
        await one.until_states("releasing", "releasing")


async def test_every_unfinished_job_is_taken_up_at_the_start_however_many_there_may_be(layout: Layout) -> None:
    async with site(layout, parallel(layout, 2)) as one:
        one.worker.may_end.clear()
        await one.change()
        await until_running(one, 1)
        await one.ask()
        await until_running(one, 2)
    async with site(layout, parallel(layout, 1)) as one:
        one.worker.may_end.clear()
        await until_running(one, 1)

        async def the_other_waits() -> bool:
            return any("no more may" in str(way.waits_for) for way in one.conductor.under_way)

        await one.until(the_other_waits)  # for the place on the CPU
        assert len(one.conductor.under_way) == 2
        one.worker.may_end.set()
        await one.until_states("releasing", "releasing")
        assert len(one.released) == 2


async def test_different_wishes_are_different_jobs_and_the_same_wish_is_one(layout: Layout) -> None:
    never = settings_of(layout.root, new_annotations=None)
    async with site(layout, never) as one:
        await one.change()
        one.worker.may_end.clear()
        await one.ask("0", "first")
        await until_running(one, 1)
        for id_, epochs in (("1", None), ("2", 7), ("3", None), ("4", 7)):
            await one.ask(id_, f"reason {id_}", epochs=epochs)
        one.worker.may_end.set()
        _, plain, long = await one.until_states("releasing", "releasing", "releasing")
        assert ("reason 1; reason 3" in plain.reason, "one of 7 epochs (reason 2; reason 4)" in long.reason) == (True, True)
        assert one.worker.epochs == [1, 1, 7]
        assert (long.epochs, long.asked, plain.epochs) == (7, True, None)


# Tried again


def halving(spec: JobSpec, attempts: Sequence[Attempt]) -> Again | GiveUp:
    """With half the batch each time, three times at most, an hour apart."""
    if len(attempts) > 3:
        return GiveUp(Outcome.OUT_OF_MEMORY, "it never fits")
    return Again(spec.model_copy(update={"batch_size": spec.batch_size // 2}), pause_s=3600.0)


def halving_at_once(spec: JobSpec, attempts: Sequence[Attempt]) -> Again | GiveUp:
    decided = halving(spec, attempts)
    return replace(decided, pause_s=0.0) if isinstance(decided, Again) else decided


async def test_a_job_is_tried_again_as_its_history_says_and_that_is_kept(layout: Layout) -> None:
    async with site(layout, settings_of(layout.root), retry=halving_at_once) as one:
        one.worker.outcomes = [Outcome.OUT_OF_MEMORY, Outcome.INFRASTRUCTURE]
        await one.change()
        (job,) = await one.until_states("releasing")
        assert [spec.batch_size for spec in one.worker.specs] == [8, 4, 2]
        attempts = directory_of(layout, job).read_attempts()
        assert [(attempt.outcome, attempt.batch_size, attempt.counts) for attempt in attempts] == [
            ("out_of_memory", 8, True), ("infrastructure", 4, True), ("done", 2, False),
        ]  # fmt: skip


async def test_a_kill_in_the_pause_before_a_start_is_made_good_by_another_pause(layout: Layout) -> None:
    for _ in range(3):
        async with site(layout, settings_of(layout.root), retry=halving) as one:
            if not await one.jobs():
                one.worker.outcomes = [Outcome.OUT_OF_MEMORY]
                await one.change()

            async def waits() -> bool:
                return any("the pause before start 2" in str(way.waits_for) for way in one.conductor.under_way)

            await one.until(waits)
            await one.until_states("queued")
    async with site(layout, settings_of(layout.root), retry=halving_at_once) as one:
        (job,) = await one.until_states("releasing")
        assert [spec.batch_size for spec in one.worker.specs] == [4]
        assert len(directory_of(layout, job).read_attempts()) == 2


async def test_a_job_that_is_given_up_has_failed_with_the_reason(layout: Layout) -> None:
    async with site(layout, settings_of(layout.root), retry=halving_at_once) as one:
        one.worker.outcomes = [Outcome.OUT_OF_MEMORY] * 9
        await one.change()
        (job,) = await one.until_states("failed")
        assert (job.why, job.blame, job.judged) == ("out_of_memory: it never fits", "settings", False)
        assert len(one.worker.specs) == 4


@pytest.mark.parametrize(("boot", "counts", "reason"), [(None, True, "was killed while no daemon"), ("before", False, "machine went down")])
async def test_a_worker_that_died_while_nobody_watched_is_in_the_history(
    layout: Layout, boot: str | None, reason: str, *, counts: bool
) -> None:
    async with site(layout, settings_of(layout.root)) as one:
        one.worker.may_end.clear()
        await one.change()
        await until_running(one, 1)
        (job,) = await one.jobs()
    directory = directory_of(layout, job)
    directory.write_identity(Identity(pid=2**22 + 1, start_ticks=1, boot_id=boot or boot_id(), token="t", attempt=1))
    async with site(layout, settings_of(layout.root)) as one:
        one.worker.attempts = 2
        await one.until_states("releasing")
        first, second = directory.read_attempts()
        assert (first.number, first.outcome, first.counts, reason in first.reason) == (1, "infrastructure", counts, True)
        assert (second.number, second.outcome) == (2, "done")
        assert len(one.worker.specs) == 1
        assert one.worker.ended == [directory.path]  # what it had started, before GPUs are chosen: it may hold them


async def test_a_job_that_fails_while_its_worker_may_live_ends_it(layout: Layout) -> None:
    async with site(layout, settings_of(layout.root)) as one:
        one.worker.may_end.clear()
        await one.change()
        await until_running(one, 1)
        (job,) = await one.jobs()
    directory = directory_of(layout, job)
    (directory.path / "result.json").write_text('{"of": "another release"}')
    async with site(layout, settings_of(layout.root)) as one:
        (job,) = await one.until_states("failed")
        assert "result.json cannot be understood" in str(job.why)
        assert one.worker.ended == [directory.path]


# Judged


async def test_a_verdict_is_recorded_with_its_reason_and_numbers(layout: Layout) -> None:
    async with site(layout, settings_of(layout.root), judge=judging(ACCEPTED)) as one:
        await one.change()
        (job,) = await one.until_states("releasing")
        assert job.why == "better"
        checks = [{"name": "mAP50-95", "value": 0.5, "limit": 0.4, "ok": True, "counts": False}]
        assert job.verdict == {"decision": "accepted", "reason": "better", "by": "gate", "time": NIGHT, "checks": checks}


async def test_when_the_rival_has_changed_only_the_evaluation_is_done_again(layout: Layout) -> None:
    asked: list[str] = []
    async with site(layout, settings_of(layout.root), judge=judging(None, ACCEPTED, asked=asked)) as one:
        await one.change()
        (job,) = await one.until_states("releasing")
        assert asked == ["prepare", "no model", "prepare", "no model"]
        assert len(one.worker.specs) == 2
        assert [attempt.counts for attempt in directory_of(layout, job).read_attempts()] == [False, False]


async def test_of_two_that_end_together_the_second_is_compared_with_the_first(layout: Layout) -> None:
    asked: list[str] = []
    async with site(layout, parallel(layout, 2), judge=judging(ACCEPTED, REJECTED, asked=asked)) as one:
        one.worker.may_end.clear()
        await one.change()
        await until_running(one, 1)
        await one.ask()
        await until_running(one, 2)
        one.worker.may_end.set()

        async def ended() -> bool:
            return sorted(job.state for job in await one.jobs()) == ["rejected", "releasing"]

        await one.until(ended)
        (first,) = [job.id for job in await one.jobs() if job.state == "releasing"]
        assert asked == ["prepare", "prepare", "no model", first]


@pytest.mark.parametrize(("verdict", "state"), [(HELD, "held"), (REJECTED, "rejected")])
async def test_an_operator_overrules_the_gate_and_the_model_is_installed_and_released(layout: Layout, verdict: Verdict, state: str) -> None:
    async with site(layout, settings_of(layout.root), judge=judging(verdict)) as one:
        await one.change()
        (job,) = await one.until_states(state)
        assert (job.judged, job.why, one.released) == (True, verdict.reason, [])
        await one.until_why("0 annotations are")
        said = await one.conductor.overrule(job.id, Decision.ACCEPTED, "the test images are old")
        assert "becomes the current one" in said
        (job,) = await one.until_states("releasing")
        assert len(one.released) == 1
        assert job.verdict is not None
        assert (job.verdict["by"], job.verdict["reason"], job.verdict["before"]["reason"]) == (
            "operator", "the test images are old", verdict.reason,
        )  # fmt: skip
        assert await one.conductor.overrule(job.id, Decision.ACCEPTED, "the test images are old") == said  # the request again, after a kill
        with pytest.raises(OperatorError, match="is releasing: only a model that is held or rejected can be promoted"):
            await one.conductor.overrule(job.id, Decision.ACCEPTED, "again")


async def test_a_held_model_is_rejected_by_an_operator_and_promoted_after_all(layout: Layout) -> None:
    async with site(layout, settings_of(layout.root), judge=judging(HELD)) as one:
        await one.change()
        (job,) = await one.until_states("held")
        await one.conductor.overrule(job.id, Decision.REJECTED, "looked at it")
        (job,) = await one.until_states("rejected")
        with pytest.raises(OperatorError, match="is rejected: only a model that is held can be rejected"):
            await one.conductor.overrule(job.id, Decision.REJECTED, "again")
        await one.conductor.overrule(job.id, Decision.ACCEPTED, "looked again")
        (job,) = await one.until_states("releasing")
        assert job.verdict is not None
        assert [job.verdict["reason"], job.verdict["before"]["reason"]] == ["looked again", "looked at it"]
        db = one.call.ledger._db
        actors = await one.call(lambda: db.execute("SELECT action, actor FROM audit WHERE actor='operator' ORDER BY id").fetchall())
        assert actors == [("rejected", "operator"), ("accepted", "operator")]


async def test_what_an_operator_promoted_is_installed_after_a_kill_and_a_model_that_is_gone_is_not_promoted(layout: Layout) -> None:
    async with site(layout, settings_of(layout.root), judge=judging(HELD)) as one:
        await one.change()
        (job,) = await one.until_states("held")
        with pytest.raises(OperatorError, match="there is no job X"):
            await one.conductor.overrule("X", Decision.ACCEPTED, "r")
        onnx = directory_of(layout, job).onnx
        content = onnx.read_bytes()
        onnx.unlink()
        with pytest.raises(OperatorError, match=r"cannot be promoted: the model of the job .* is gone"):
            await one.conductor.overrule(job.id, Decision.ACCEPTED, "r")
        onnx.write_bytes(content)
        await one.call(one.call.ledger.put_job, replace(job, state="accepted"))  # killed right after it was recorded
    async with site(layout, settings_of(layout.root), judge=judging()) as one:
        await one.until_states("releasing")
        assert layout.onnx.read_bytes() == content


async def test_what_was_accepted_before_a_kill_is_installed_before_what_an_operator_asks_for_then(layout: Layout) -> None:
    async with site(layout, settings_of(layout.root), judge=judging(HELD)) as one:
        await one.change()
        (job,) = await one.until_states("held")
        await one.call(one.call.ledger.put_job, replace(job, state="accepted"))
    async with site(layout, settings_of(layout.root), judge=judging()) as one:
        await one.conductor.begun()
        async with one.conductor.installer.lock:
            (model,) = await one.call(one.call.ledger.models)
            assert (model.job, model.current) == (job.id, True)
