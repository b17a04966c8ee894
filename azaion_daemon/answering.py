"""What commands ask of a running daemon is carried out, one request after the other, and answered."""

import asyncio
from typing import Any, Protocol

from azaion_daemon.conducting.conductor import Conductor
from azaion_daemon.conducting.promoting import Promoter
from azaion_daemon.conducting.triggering import Trigger
from azaion_daemon.errors import OperatorError
from azaion_daemon.health import waiting_for, working
from azaion_daemon.ingest.digester import Digester
from azaion_daemon.ingest.pipeline import Pipeline
from azaion_daemon.logs import get_logger
from azaion_daemon.ops.requests import Request, answer, pending
from azaion_daemon.orders import MODELS, TRAININGS, carry_out, change_model
from azaion_daemon.releasing import RollBack
from azaion_daemon.store.layout import Layout

log = get_logger(__name__)


class Check(Protocol):
    """Compares tree and ledger, beside the daemon."""

    async def __call__(self, *, deep: bool, repair: bool) -> dict[str, Any]:
        """What differs, and what was mended."""


class Answerer:
    """Looks for requests whenever it is asked to, and at the start: there may be some from the time before."""

    def __init__(
        self,
        layout: Layout,
        pipeline: Pipeline,
        digester: Digester,
        trigger: Trigger,
        conductor: Conductor,
        promoter: Promoter,
        roll_back: RollBack,
        *,
        check: Check,
    ) -> None:
        self._layout = layout
        self._pipeline = pipeline
        self._digester = digester
        self._trigger = trigger
        self._conductor = conductor
        self._promoter = promoter
        self._roll_back = roll_back
        self._compare = check
        self._asked = asyncio.Event()
        self._asked.set()

    def ask(self) -> None:
        """There is a request."""
        self._asked.set()

    async def run(self) -> None:
        """Do what commands ask for, one request after the other."""
        while True:
            with waiting_for("requests"):
                await self._asked.wait()
            self._asked.clear()
            with working("reading requests"):
                requests = await asyncio.to_thread(pending, self._layout)
            for request in requests:
                with working(f"request {request.kind}"):
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
        document = await self._compare(deep=deep, repair=repair)
        if repair:
            await self._pipeline.recount()
            self._digester.look_again()
        return document
