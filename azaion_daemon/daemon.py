"""The composition root: builds the parts, runs them in one TaskGroup, and takes them down in order.

Crash-only: starting after a kill is the normal start. A stop takes no more messages, finishes the batch in hand and leaves a worker
running, which the next start adopts.
"""

import asyncio
import faulthandler
import os
import signal
import sys
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from azaion_daemon import __version__
from azaion_daemon.answering import Answerer
from azaion_daemon.conducting.conductor import Conductor
from azaion_daemon.conducting.forming import DatasetFormer
from azaion_daemon.conducting.judging import Judge
from azaion_daemon.conducting.promoting import Promoter
from azaion_daemon.conducting.triggering import Trigger
from azaion_daemon.dataset.classes import Classes, load_classes
from azaion_daemon.errors import AzaionError, ConfigError, DiskFullError
from azaion_daemon.health import JOB_LIMIT_S, PUBLISH_LIMIT_S, STEP_LIMIT_S, Vitals
from azaion_daemon.ingest.digester import Digester
from azaion_daemon.ingest.inbox import Inbox
from azaion_daemon.ingest.pipeline import Pipeline
from azaion_daemon.logs import get_logger, logging_to
from azaion_daemon.logs.folding import Repeats
from azaion_daemon.logs.output import LogOutput
from azaion_daemon.notify import Notifier
from azaion_daemon.ops.allocator import reuse_memory_of_messages
from azaion_daemon.ops.indexing import check_beside
from azaion_daemon.ops.job_status import GpuWatch
from azaion_daemon.ops.reload import Take
from azaion_daemon.ops.status_line import status_line
from azaion_daemon.outbox import Outbox
from azaion_daemon.publish.credentials import credentials_source
from azaion_daemon.publish.platform import PlatformClient
from azaion_daemon.publish.release import Publisher
from azaion_daemon.releasing import RollBack, release_facts
from azaion_daemon.reloading import Introduction, Reloader
from azaion_daemon.reporting import Parts, Reporter
from azaion_daemon.retention.keeper import Keeper
from azaion_daemon.settings import Settings, load_settings
from azaion_daemon.signals import Signals
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import Ledger, LedgerThread
from azaion_daemon.store.modes import close_root, open_secrets, secret_files
from azaion_daemon.store.root import lock_root, open_root
from azaion_daemon.stream.consumer import StreamConsumer
from azaion_daemon.stream.resume import Resume
from azaion_daemon.stream.tls import tls_context
from azaion_daemon.training.gpus import PatientGpus
from azaion_daemon.training.nvml import NvmlGpus
from azaion_daemon.training.pool import WorkerPool
from azaion_daemon.watchdog import Watchdog, patience

if TYPE_CHECKING:
    from azaion_daemon.metrics.server import MetricsServer

log = get_logger(__name__)

T = TypeVar("T")


def run(config: Path, signals: Signals) -> int:
    """Run the daemon in the foreground until SIGTERM or SIGINT; the process's exit status. `signals` keeps those that come before."""
    notifier = Notifier.taken_from(os.environ)
    try:
        settings = load_settings(config)
    except ConfigError as unusable:
        with logging_to(sys.stdout, level="info", style="auto"):
            log.error("daemon.failed", error=str(unusable), kind="ConfigError")  # noqa: TRY400 - expected: no traceback
        notifier.status(f"Failed: {unusable}")
        return unusable.exit_code
    with logging_to(sys.stdout, level=settings.log.level, style=settings.log.format) as output:
        log.info("daemon.starting", version=__version__, pid=os.getpid(), config=str(config), root=str(settings.directories.root))
        reuse_memory_of_messages()
        faulthandler.enable()  # systemd's watchdog ends a daemon that hangs with SIGABRT: then it says where each thread was
        exit_code = 0
        try:
            _prepare_and_serve(settings, config, signals, notifier, output)
            log.info("daemon.stopped")
        except* AzaionError as group:
            error = _first(group)
            assert isinstance(error, AzaionError)
            notifier.status(f"Failed: {error}")
            log.error("daemon.failed", error=str(error), kind=type(error).__name__)  # noqa: TRY400 - expected: no traceback
            exit_code = error.exit_code
        except* Exception:
            log.exception("daemon.crashed")
            notifier.status("Failed: by a fault of the program, see the journal")
            exit_code = 1
    return exit_code


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _prepare_and_serve(settings: Settings, config: Path, signals: Signals, notifier: Notifier, output: LogOutput) -> None:
    notifier.status("Starting: the root is looked at")
    layout = Layout.of(settings.directories)
    open_root(layout)
    _say_what_is_open(settings, config, layout)
    classes = load_classes(layout.classes)
    tls_context(settings.stream)
    with lock_root(layout):

        async def serve() -> None:
            await Daemon(settings, config, layout, classes, notifier, output).serve(signals)

        asyncio.run(serve())


def _say_what_is_open(settings: Settings, config: Path, layout: Layout) -> None:
    for opened in close_root(layout):
        log.warning("root.was_open", path=str(opened.path), mode=f"{opened.mode:04o}", now=f"{opened.now:04o}")
    for opened in open_secrets(*secret_files(settings, config)):
        log.warning("secret.open", path=str(opened.path), mode=f"{opened.mode:04o}")


class Daemon:
    """One running daemon."""

    def __init__(self, settings: Settings, config: Path, layout: Layout, classes: Classes, notifier: Notifier, output: LogOutput) -> None:
        self._notifier = notifier
        self._vitals = Vitals(patience(notifier))
        self._watchdog = Watchdog(self._vitals, notifier)
        self._stream = settings.stream.name
        self._layout = layout
        self._ledger = LedgerThread(Ledger(layout.ledger), self._vitals.thread("ledger"))
        inbox = Inbox(settings.stream.queue_bytes)
        self._pipeline = Pipeline(settings.stream.name, settings.ingest, layout, self._ledger, inbox, known_classes=classes.known)
        self._digester = Digester(layout, self._ledger, self._pipeline)
        self._consumer = StreamConsumer(settings.stream, self._resume, inbox.put)
        self._platform = PlatformClient(settings.api, layout.hardware, kept_refusal=layout.refused_login)
        self._introduction = Introduction(self._platform, settings.api)
        self._publisher = Publisher(settings.publish, self._platform, credentials_source(settings, self._platform), layout)
        self._outbox = Outbox(settings.publish, self._ledger, self._publisher, facts=lambda model: release_facts(model, layout))
        self._former = DatasetFormer(layout, classes, self._ledger, self._digester, stream=settings.stream.name)
        self._keeper = Keeper(
            settings.retention,
            layout,
            self._ledger,
            prune=lambda: self._former.prune(self._reloader.settings),
            installing=lambda: self._conductor.installer.lock,
        )
        self._trigger = Trigger(settings, layout, classes, self._ledger, self._pipeline.state)
        nvml = NvmlGpus()
        gpus = PatientGpus(nvml)
        self._judge = Judge(settings, layout, self._ledger, clock=time.time)
        self._conductor = Conductor(
            settings,
            layout,
            self._ledger,
            self._pipeline,
            self._former,
            self._trigger,
            workers=WorkerPool(gpus=gpus),
            gpus=gpus,
            judge=self._judge,
            order_release=self._outbox.order,
            after_job=self._keeper.look,
        )
        self._roll_back = RollBack(layout, self._ledger, self._pipeline.space, self._outbox.order, self._conductor.installer.lock)
        self._promoter = Promoter(layout, self._ledger, self._pipeline.space, self._conductor.installer)
        self._reloader = Reloader(
            settings,
            config,
            self._takes(),
            around=notifier.reloading,
            done=lambda: self._reporter.soon(),  # noqa: PLW0108 - made below
        )
        self._gpus = GpuWatch(nvml, layout, lambda: [one.job.id for one in self._conductor.under_way])
        parts = Parts(
            consumer=self._consumer,
            inbox=inbox,
            pipeline=self._pipeline,
            ledger=self._ledger,
            former=self._former,
            trigger=self._trigger,
            conductor=self._conductor,
            outbox=self._outbox,
            gpus=self._gpus,
            reloader=self._reloader,
            vitals=self._vitals,
            platform=self._platform,
            publisher=self._publisher,
            log=output,
        )
        self._metrics = _metrics_server(settings)
        self._reporter = Reporter(parts, layout, config, self._tell)
        self._stop = asyncio.Event()
        self._answerer = Answerer(
            layout, self._pipeline, self._digester, self._trigger, self._conductor, self._promoter, self._roll_back, check=self._check
        )

    async def serve(self, signals: Signals) -> None:
        """Work until a signal asks to stop."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_StrayErrors())
        actions = {
            signal.SIGTERM: self._ask_to_stop,
            signal.SIGINT: self._ask_to_stop,
            signal.SIGUSR1: self._answerer.ask,
            signal.SIGHUP: self._reloader.ask,
        }
        with signals.told(actions, loop):
            await self._serve()

    async def _serve(self) -> None:
        if self._metrics is not None:
            self._metrics.start()
        try:
            async with self._platform:
                async with self._watchdog.starting():
                    self._notifier.status("Starting: what the last run has left is finished")
                    await self._vitals.watched("recover", self._recover(), limit_s=JOB_LIMIT_S)  # debris may be a whole dataset
                if self._stop.is_set():
                    log.info("daemon.stopping")
                else:
                    await self._work()
        except BaseException as error:
            self._reporter.ended_by = _reason(error)
            raise
        finally:
            self._pipeline.close()
            self._reporter.state = "stopped"
            await self._reporter.write()
            await asyncio.to_thread(self._ledger.close)
            if self._metrics is not None:
                await asyncio.to_thread(self._metrics.close)

    async def _recover(self) -> None:
        try:
            await self._pipeline.recover()
            await self._conductor.recover()
        except DiskFullError as full:
            if not self._stop.is_set():
                raise
            log.warning("ingest.left_unfinished", why=str(full))  # the next start goes on

    def _ask_to_stop(self) -> None:
        self._notifier.stopping("Stopping: the batch in hand is finished; a training goes on")
        self._stop.set()
        self._pipeline.space.give_up()  # also a recovery that waits for space

    async def _work(self) -> None:
        if self._reloader.settings.publish.model_key is None:
            log.warning("config.model_key_missing")
        async with asyncio.TaskGroup() as tasks:

            def begin(part: str, work: Coroutine[Any, Any, T], limit_s: float = STEP_LIMIT_S) -> asyncio.Task[T]:
                return tasks.create_task(self._vitals.watched(part, work, limit_s=limit_s), name=part)

            consuming = begin("consume", self._consumer.run())
            writing = begin("write", self._pipeline.run())
            triggering = begin("trigger", self._trigger.run())
            conducting = begin("conduct", self._conductor.run())
            digesting = begin("digest", self._digester.run())
            publishing = begin("publish", self._outbox.run(), PUBLISH_LIMIT_S)
            keeping = begin("keep", self._keeper.run())
            answering = begin("answer", self._answerer.run())
            reloading = begin("reload", self._reloader.run())
            introducing = begin("log in", self._introduction.run())
            watching = begin("gpus", self._gpus.run())
            reporting = begin("report", self._reporter.run())
            feeding = tasks.create_task(self._watchdog.run(), name="watchdog")
            self._reporter.state = "running"
            if not self._stop.is_set():
                self._notifier.ready("Running; the broker is being connected to")
            log.info("daemon.ready", seconds=round(time.time() - self._reporter.started, 3))
            await self._stop.wait()
            self._reporter.state = "stopping"
            log.info("daemon.stopping")
            consuming.cancel()
            triggering.cancel()
            conducting.cancel()
            digesting.cancel()
            publishing.cancel()
            keeping.cancel()
            answering.cancel()
            reloading.cancel()
            introducing.cancel()
            watching.cancel()
            self._pipeline.stop()
            await writing
            reporting.cancel()
            feeding.cancel()

    async def _resume(self) -> Resume:
        ledger = self._ledger.ledger
        return Resume(await self._ledger(ledger.position, self._stream), await self._ledger(ledger.last_position))

    def _tell(self, document: Mapping[str, Any]) -> None:
        """Whoever shows the status elsewhere than in its file."""
        self._notifier.status(status_line(document))
        if self._metrics is not None:
            self._metrics.take(document)

    async def _check(self, *, deep: bool, repair: bool) -> dict[str, Any]:
        return await check_beside(self._pipeline, self._reloader.settings, self._layout, self._ledger, deep=deep, repair=repair)

    def _takes(self) -> tuple[Take, ...]:
        """What every part that a setting reaches while it works is told. The log's level is the reloader's own."""
        return (
            lambda settings: self._pipeline.reconfigure(settings.ingest),
            lambda settings: self._keeper.reconfigure(settings.retention),
            self._trigger.reconfigure,
            self._judge.reconfigure,
            self._conductor.reconfigure,
            lambda settings: self._introduction.reconfigure(settings.api),
            lambda settings: self._publisher.reconfigure(settings.publish, credentials_source(settings, self._platform)),
            lambda settings: self._outbox.reconfigure(settings.publish),
            lambda settings: self._consumer.reconfigure(settings.stream),
        )


def _metrics_server(settings: Settings) -> "MetricsServer | None":
    if (address := settings.metrics.address) is None:
        return None
    from azaion_daemon.metrics.server import MetricsServer  # noqa: PLC0415 - its libraries take memory, and most need none

    return MetricsServer(*address)


def _reason(error: BaseException) -> str:
    """What ended the daemon, in a sentence for the status."""
    first = _first(error)
    return str(first) if isinstance(first, AzaionError) else f"a fault of this program: {type(first).__name__}"


class _StrayErrors:
    """What a library's own task or callback let fall: the parts that rely on it notice by themselves."""

    def __init__(self) -> None:
        self._repeats = Repeats()

    def __call__(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = repr(context.get("exception"))
        if (seen := self._repeats.count(context["message"], error)) is not None:
            log.warning("daemon.stray_error", what=context["message"], error=error, repeated=seen.times, for_s=seen.for_s)
