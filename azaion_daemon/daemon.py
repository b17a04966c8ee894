"""The composition root: builds the parts, runs them in one TaskGroup, and takes them down in order.

Crash-only: starting after a kill is the normal start. A stop takes no more messages, finishes the batch in hand and leaves a worker
running, which the next start adopts.
"""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from azaion_daemon import __version__
from azaion_daemon.conducting.conductor import Conductor
from azaion_daemon.conducting.forming import DatasetFormer
from azaion_daemon.conducting.judging import Judge
from azaion_daemon.conducting.promoting import Promoter
from azaion_daemon.conducting.triggering import Trigger
from azaion_daemon.dataset.classes import Classes, load_classes
from azaion_daemon.errors import AzaionError, ConfigError, OperatorError
from azaion_daemon.ingest.digester import Digester
from azaion_daemon.ingest.inbox import Inbox
from azaion_daemon.ingest.pipeline import Pipeline
from azaion_daemon.logs import get_logger, logging_to
from azaion_daemon.ops.allocator import reuse_memory_of_messages
from azaion_daemon.ops.indexing import check_beside
from azaion_daemon.ops.job_status import GpuWatch
from azaion_daemon.ops.requests import Request, answer, pending
from azaion_daemon.orders import MODELS, TRAININGS, carry_out, change_model
from azaion_daemon.outbox import Outbox
from azaion_daemon.publish.credentials import credentials_source
from azaion_daemon.publish.platform import PlatformClient
from azaion_daemon.publish.release import Publisher
from azaion_daemon.releasing import RollBack, release_facts
from azaion_daemon.reloading import Reloader
from azaion_daemon.reporting import Parts, Reporter
from azaion_daemon.retention.keeper import Keeper
from azaion_daemon.settings import Settings, load_settings
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import Ledger, LedgerThread
from azaion_daemon.store.modes import close_root, open_secrets
from azaion_daemon.store.root import lock_root, open_root
from azaion_daemon.stream.consumer import StreamConsumer
from azaion_daemon.stream.resume import Resume
from azaion_daemon.stream.tls import tls_context
from azaion_daemon.training.gpus import PatientGpus
from azaion_daemon.training.nvml import NvmlGpus
from azaion_daemon.training.pool import WorkerPool

log = get_logger(__name__)


def run(config: Path) -> int:
    """Run the daemon in the foreground until SIGTERM or SIGINT; the process's exit status."""
    try:
        settings = load_settings(config)
    except ConfigError as unusable:
        with logging_to(sys.stdout, level="info", style="auto"):
            log.error("daemon.failed", error=str(unusable), kind="ConfigError")  # noqa: TRY400 - expected: no traceback
        return unusable.exit_code
    with logging_to(sys.stdout, level=settings.log.level, style=settings.log.format):
        log.info("daemon.starting", version=__version__, pid=os.getpid(), config=str(config), root=str(settings.directories.root))
        reuse_memory_of_messages()
        exit_code = 0
        try:
            _prepare_and_serve(settings, config)
            log.info("daemon.stopped")
        except* AzaionError as group:
            error = _first(group)
            log.error("daemon.failed", error=str(error), kind=type(error).__name__)  # noqa: TRY400 - expected: no traceback
            exit_code = error.exit_code
        except* Exception:
            log.exception("daemon.crashed")
            exit_code = 1
    return exit_code


def _first(group: BaseExceptionGroup[AzaionError]) -> AzaionError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, AzaionError)
    return error


def _prepare_and_serve(settings: Settings, config: Path) -> None:
    layout = Layout.of(settings.directories)
    open_root(layout)
    _say_what_is_open(settings, config, layout)
    classes = load_classes(layout.classes)
    tls_context(settings.stream)
    with lock_root(layout):

        async def serve() -> None:
            await Daemon(settings, config, layout, classes).serve()

        asyncio.run(serve())


def _say_what_is_open(settings: Settings, config: Path, layout: Layout) -> None:
    for opened in close_root(layout):
        log.warning("root.was_open", path=str(opened.path), mode=f"{opened.mode:04o}", now=f"{opened.now:04o}")
    for opened in open_secrets(config, settings.publish.cdn_credentials_file, settings.stream.client_key_file):
        log.warning("secret.open", path=str(opened.path), mode=f"{opened.mode:04o}")


class Daemon:
    """One running daemon."""

    def __init__(self, settings: Settings, config: Path, layout: Layout, classes: Classes) -> None:
        self._reloader = Reloader(settings, config, self._take)
        self._stream = settings.stream.name
        self._layout = layout
        self._ledger = LedgerThread(Ledger(layout.ledger))
        inbox = Inbox(settings.stream.queue_bytes)
        self._pipeline = Pipeline(settings.stream.name, settings.ingest, layout, self._ledger, inbox, known_classes=classes.known)
        self._digester = Digester(layout, self._ledger, self._pipeline)
        self._consumer = StreamConsumer(settings.stream, self._resume, inbox.put)
        self._platform = PlatformClient(settings.api, layout.hardware, kept_refusal=layout.refused_login)
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
        )
        self._reporter = Reporter(parts, layout, config)
        self._stop = asyncio.Event()
        self._asked = asyncio.Event()
        self._asked.set()  # there may be requests from the time before the start

    async def serve(self) -> None:
        """Work until a signal asks to stop."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_report_stray)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ask_to_stop)
        loop.add_signal_handler(signal.SIGUSR1, self._asked.set)
        loop.add_signal_handler(signal.SIGHUP, self._reloader.ask)
        try:
            async with self._platform:
                await self._pipeline.recover()
                await self._conductor.recover()
                await self._work()
        finally:
            self._pipeline.close()
            self._reporter.state = "stopped"
            await self._reporter.write()
            await asyncio.to_thread(self._ledger.close)

    def _ask_to_stop(self) -> None:
        self._stop.set()
        self._pipeline.space.give_up()  # also a recovery that waits for space

    async def _work(self) -> None:
        if self._reloader.settings.publish.model_key is None:
            log.warning("config.model_key_missing")
        async with asyncio.TaskGroup() as tasks:
            consuming = tasks.create_task(self._consumer.run(), name="consume")
            writing = tasks.create_task(self._pipeline.run(), name="write")
            triggering = tasks.create_task(self._trigger.run(), name="trigger")
            conducting = tasks.create_task(self._conductor.run(), name="conduct")
            digesting = tasks.create_task(self._digester.run(), name="digest")
            publishing = tasks.create_task(self._outbox.run(), name="publish")
            keeping = tasks.create_task(self._keeper.run(), name="keep")
            answering = tasks.create_task(self._keep_answering(), name="answer")
            reloading = tasks.create_task(self._reloader.run(), name="reload")
            watching = tasks.create_task(self._gpus.run(), name="gpus")
            reporting = tasks.create_task(self._reporter.run(), name="report")
            self._reporter.state = "running"
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
            watching.cancel()
            self._pipeline.stop()
            await writing
            reporting.cancel()

    async def _resume(self) -> Resume:
        ledger = self._ledger.ledger
        return Resume(await self._ledger(ledger.position, self._stream), await self._ledger(ledger.last_position))

    def _take(self, settings: Settings) -> None:
        """Tell every part what it works with from now on."""
        self._consumer.reconfigure(settings.stream)
        self._keeper.reconfigure(settings.retention)
        self._trigger.reconfigure(settings)
        self._judge.reconfigure(settings)
        self._conductor.reconfigure(settings)
        self._platform.reconfigure(settings.api)
        self._publisher.reconfigure(settings.publish, credentials_source(settings, self._platform))
        self._outbox.reconfigure(settings.publish)

    async def _keep_answering(self) -> None:
        """Do what commands ask for, one request after the other."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            for request in await asyncio.to_thread(pending, self._layout):
                document = await self._carry_out(request)
                log.info("request.answered", kind=request.kind, arguments=request.arguments, error=document.get("error"))
                await self._pipeline.space.repeat(lambda: asyncio.to_thread(answer, self._layout, request, document))  # noqa: B023 - awaited here

    async def _carry_out(self, request: Request) -> dict[str, Any]:
        try:
            match request:
                case Request(kind="replay", arguments={"position": int(position), "as_new": bool(as_new)}):
                    return {"ok": True, "refused": await self._pipeline.replay(position, as_new=as_new)}
                case Request(kind="index_check", arguments={"deep": bool(deep), "repair": bool(repair)}):
                    return {"ok": True, "report": await self._check(deep=deep, repair=repair)}
                case Request(kind=kind) if kind in TRAININGS:
                    return await carry_out(request, self._trigger, self._conductor, self._pipeline.space)
                case Request(kind=kind) if kind in MODELS:
                    return await change_model(request, self._conductor, self._promoter, self._roll_back)
                case _:
                    return {"ok": False, "error": f"this daemon does not know the request {request.kind}"}
        except OperatorError as error:
            return {"ok": False, "error": str(error)}

    async def _check(self, *, deep: bool, repair: bool) -> dict[str, Any]:
        document = await check_beside(self._pipeline, self._reloader.settings, self._layout, self._ledger, deep=deep, repair=repair)
        if repair:
            await self._pipeline.recount()
            self._digester.look_again()
        return document


def _report_stray(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What a library's own task or callback let fall: the parts that rely on it notice by themselves."""
    log.warning("daemon.stray_error", what=context["message"], error=repr(context.get("exception")))
