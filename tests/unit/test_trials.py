"""A trial: everything on a sample, refused for what the real training would be refused for, and nothing comes of it."""

import asyncio
from pathlib import Path

import pytest
from pydantic import SecretStr

from azaion_daemon.conducting.trials import Peak, sentence, try_encryption
from azaion_daemon.errors import ReleaseError
from azaion_daemon.publish import packing
from azaion_daemon.sections import PublishSettings
from azaion_daemon.store.layout import Layout
from azaion_daemon.training.jobs import JobDirectory, JobResult
from azaion_daemon.training.outcomes import Outcome
from tests.unit.test_courses import parallel, until_running
from tests.unit.test_training_jobs import NOW
from tests.unit.test_triggering import MEDIA, NIGHT, layout, settings_of, site

__all__ = ["layout"]


async def test_it_is_trained_on_a_sample_for_one_epoch_and_nothing_comes_of_it(layout: Layout) -> None:
    never = settings_of(layout.root, epochs=120, new_annotations=None)
    async with site(layout, never) as one:
        await one.change()
        one.worker.may_end.clear()
        await one.ask(trial=True)
        await until_running(one, 1)
        (spec,) = one.worker.specs
        (job,) = await one.jobs()
        directory = JobDirectory(layout.jobs / job.id)
        assert (spec.trial, spec.epochs, spec.data_yaml) == (True, 1, directory.sample / "data.yaml")
        assert len(list((directory.sample / "train" / "images").iterdir())) > 0
        one.worker.may_end.set()
        (job,) = await one.until_states("tried")
        assert (job.judged, job.dataset, job.verdict, job.trial, job.asked) == (False, None, None, True, True)
        assert str(job.why).startswith("everything works, on a sample and for one epoch")
        assert "a throwaway key, since none is configured" in str(job.why)
        assert (one.released, layout.onnx.exists(), list(layout.datasets.iterdir()), directory.worked_with()) == ([], False, [], [])
        assert await one.call(one.call.ledger.sides) == {}
        await one.until_why(f"wait because neither the schedule nor an operator says otherwise; {MEDIA} annotations are new")


async def test_the_training_that_was_due_follows_at_once_whatever_became_of_the_trial(layout: Layout) -> None:
    async with site(layout, settings_of(layout.root, new_annotations=None), lambda: NIGHT) as one:
        one.worker.outcomes = [Outcome.BAD_JOB]
        one.worker.may_end.clear()
        await one.change()
        await one.ask(trial=True)
        await until_running(one, 1)
        one.reconfigure(settings_of(layout.root, cooldown_hours=100))
        await one.until_why("is under way")
        one.worker.may_end.set()
        trial, real = await one.until_states("failed", "releasing")
        assert (trial.why, real.trial) == ("bad_job: so it is told", False)


async def test_it_is_refused_for_what_the_whole_is_refused_for(layout: Layout) -> None:
    settings = settings_of(layout.root, new_annotations=None)
    few = settings.model_copy(update={"dataset": settings.dataset.model_copy(update={"min_images": 1000})})
    async with site(layout, few) as one:
        await one.change()
        await one.ask(trial=True)
        (job,) = await one.until_states("failed")
        assert "too_few_images: 12 images can be used, 1000 are needed at least" in str(job.why)
        assert one.worker.specs == []
        await one.until_why(f"wait because neither the schedule nor an operator says otherwise; {MEDIA} annotations are new")


async def test_one_that_is_cancelled_does_not_count_as_judged(layout: Layout) -> None:
    async with site(layout, settings_of(layout.root, new_annotations=None)) as one:
        await one.change()
        one.worker.may_end.clear()
        await one.ask(trial=True)
        await until_running(one, 1)
        await one.conductor.cancel(None, "enough")
        await one.until_states("cancelled")
        await one.until_why(f"{MEDIA} annotations are new")


async def test_a_kill_at_its_end_or_while_its_sample_is_taken_is_made_good(layout: Layout) -> None:
    never = settings_of(layout.root, new_annotations=None)
    async with site(layout, never) as one:
        await one.change()
        async with one.pipeline.still():
            await one.ask(trial=True)
            (job,) = await one.until_states("forming")
    directory = JobDirectory(layout.jobs / job.id)
    (directory.sample / "train").mkdir(parents=True)  # as if it had been killed before the ledger knew
    (directory.path / ".forming-dataset" / "train").mkdir(parents=True)
    async with site(layout, never) as one:
        (job,) = await one.until_states("tried")
        assert not (directory.path / ".forming-dataset").exists()


async def test_it_runs_beside_a_training_where_there_is_room(layout: Layout) -> None:
    async with site(layout, parallel(layout, 2)) as one:
        one.worker.may_end.clear()
        await one.change()
        await until_running(one, 1)
        await one.ask(trial=True)
        await until_running(one, 2)
        one.worker.may_end.set()
        await one.until_states("releasing", "tried")
        await asyncio.sleep(0.05)
        assert len(one.released) == 1


# Encryption


@pytest.mark.parametrize("size", [0, 100, 20_000, 3 << 20])
def test_a_model_of_any_size_is_the_same_after_encryption(tmp_path: Path, size: int) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(bytes(range(256)) * (size // 256 + 1))
    with_key = try_encryption(model, PublishSettings(model_key=SecretStr("the model key")))
    assert with_key.with_model_key
    assert with_key.size_bytes > model.stat().st_size
    assert not try_encryption(model, PublishSettings()).with_model_key
    assert list(tmp_path.iterdir()) == [model]


def test_one_that_changes_meanwhile_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"m" * 300_000)
    digests = packing.model_digests(model)
    model.write_bytes(b"m" * 299_999 + b"n")
    monkeypatch.setattr("azaion_daemon.conducting.trials.model_digests", lambda _: digests)
    with pytest.raises(Exception, match="is another after it was encrypted and decrypted") as raised:
        try_encryption(model, PublishSettings())
    assert not isinstance(raised.value, ReleaseError)


def test_the_sentence_says_what_took_how_long_and_what_it_needed(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"m" * 5_000_000)
    seconds = {"prepare": 2.0, "train": 31.25, "export": 8.0, "evaluate": 3.0}
    result = JobResult.model_validate({"outcome": Outcome.DONE, "finished": NOW, "seconds": seconds}, strict=False)
    said = sentence(result, try_encryption(model, PublishSettings(model_key=SecretStr("k"))), Peak(9_000_000_000, 3_000_000_000))
    assert "prepare 2.0 s, train 31.2 s, export 8.0 s, evaluate 3.0 s; 5.0 MB encrypted and decrypted in 0." in said
    assert said.endswith("with the model key; it needed up to 3.0 GB of memory and 9.0 GB of GPU memory")
