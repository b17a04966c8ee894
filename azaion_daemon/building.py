"""A dataset without a training, formed by an operator's command while no daemon runs."""

import asyncio
import sys
from collections.abc import Callable

from azaion_daemon.conducting.forming import DatasetFormer
from azaion_daemon.dataset.classes import Classes, load_classes
from azaion_daemon.dataset.snapshot import Snapshot, remove_debris
from azaion_daemon.errors import AzaionError, DiskFullError, OperatorError, gravest
from azaion_daemon.ingest.digester import Digester
from azaion_daemon.ingest.inbox import Inbox
from azaion_daemon.ingest.pipeline import Pipeline
from azaion_daemon.logs import logging_to
from azaion_daemon.settings import Settings
from azaion_daemon.store.durable import lock_holder
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import Ledger, LedgerThread
from azaion_daemon.store.root import lock_root, open_root

_BY_ITSELF = " and work goes on by itself"


def build(settings: Settings, layout: Layout, *, say: Callable[[str], None]) -> Snapshot:
    """Form a dataset of what is validated now, as a training would. The sides of new media are recorded.

    Raises:
        OperatorError: The root cannot be used, a daemon runs, or the annotations cannot be trained on; nothing is left then.
        StorageError: The disk failed or is full; nothing is left.
    """
    open_root(layout)
    classes = load_classes(layout.classes)
    if (daemon := lock_holder(layout.lock)) is not None:
        raise OperatorError(
            f"a daemon runs on {layout.root} (pid {daemon}) and forms a dataset with each training. Stop it to form one by hand; what one "
            "would hold is shown by --dry-run at any time."
        )
    with logging_to(sys.stderr, level=settings.log.level, style=settings.log.format), lock_root(layout):
        return asyncio.run(_build(settings, layout, classes, say))


async def _build(settings: Settings, layout: Layout, classes: Classes, say: Callable[[str], None]) -> Snapshot:
    """The daemon's own parts, without messages coming in: first what a crash has left is finished, then unknown digests are read."""
    ledger = LedgerThread(Ledger(layout.ledger))
    pipeline = Pipeline(
        settings.stream.name, settings.ingest, layout, ledger, Inbox(settings.stream.queue_bytes), known_classes=classes.known
    )
    digester = Digester(layout, ledger, pipeline)
    former = DatasetFormer(layout, classes, ledger, digester, stream=settings.stream.name)
    try:
        await pipeline.recover()
        await asyncio.to_thread(remove_debris, layout)
        say("Forming a dataset")
        async with asyncio.TaskGroup() as tasks:
            digesting = tasks.create_task(digester.run(), name="digest")
            snapshot = await former.form(settings, lambda _: None, weights=layout.models / settings.training.model)
            digesting.cancel()
    except* AzaionError as failed:
        error = gravest(failed.exceptions)
        assert error is not None
        if isinstance(error, DiskFullError):  # what it says holds for a daemon
            raise DiskFullError(f"{str(error).replace(_BY_ITSELF, '')} No dataset was formed: run this again then.") from None
        raise error from None
    else:
        return snapshot
    finally:
        pipeline.close()
        await asyncio.to_thread(ledger.close)
