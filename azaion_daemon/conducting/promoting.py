"""A model that was the current one before becomes it again, because an operator says so."""

import asyncio
from pathlib import Path

from azaion_daemon.conducting.installing import Installer
from azaion_daemon.errors import OperatorError
from azaion_daemon.health import holding
from azaion_daemon.ingest.space import Space
from azaion_daemon.logs import get_logger
from azaion_daemon.store.kept import check_kept
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.ledger import LedgerThread
from azaion_daemon.store.records import Model

log = get_logger(__name__)


class Promoter:
    """Makes kept models the current one, as they are in the ledger."""

    def __init__(self, layout: Layout, ledger: LedgerThread, space: Space, installer: Installer) -> None:
        self._layout = layout
        self._call = ledger
        self._ledger = ledger.ledger
        self._space = space
        self._installer = installer

    async def promote(self, sha256: str, reason: str) -> str:
        """Make a kept model the current one and have it released; says so in a sentence. Done again it is the same as once.

        What is under way is compared with it then.

        Raises:
            OperatorError: There is no such model, or its files are gone or damaged.
            StorageError: The disk failed; or it is full, and nobody waits any longer.
        """
        async with holding(self._installer.lock, "another model, which is being installed"):
            models = await self._call(self._ledger.models)
            model = next((model for model in models if model.sha256 == sha256), None)
            if model is None:
                raise OperatorError(f"there is no model {sha256}. See: azaion-daemon model list")
            if not model.current:
                await asyncio.to_thread(_check, model, self._layout)
            await self._installer.put_in_place(model, reason=reason, actor="operator")
            log.info("model.promoted", sha256=sha256, job=model.job, why=reason)
        return f"Model {sha256[:12]} is the current one and is released."


def _check(model: Model, layout: Layout) -> None:
    check_kept(model, way_out="It cannot be promoted unless it is restored from a backup.")
    trainable = Path(model.path).with_name(layout.pt.name)
    if model.job is not None and not trainable.is_file():
        raise OperatorError(f"{trainable} is gone; the next training could not start from this model. Restore it from a backup.")
