"""Forms a dataset of a root's validated annotations, and kills itself at a named moment: `python -m tests.faults.forming ROOT [MOMENT]`.

Every moment lies between two calls by which the forming reaches the disk; `none` lets it come to its end, and the id is printed. It runs in
a process of its own because a SIGKILL is a real one.
"""

import os
import signal
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from azaion_daemon.dataset.classes import load_classes
from azaion_daemon.dataset.plan import plan_dataset
from azaion_daemon.dataset.snapshot import Snapshot, form_snapshot
from azaion_daemon.dataset.split import Side
from azaion_daemon.store.durable import FilesystemSync
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.ledger import Ledger
from tests.unit.builders import SMALL

MOMENTS = ("first", "middle", "described", "synced", "recorded", "named")
NOW = datetime(2026, 4, 1, tzinfo=UTC)


def form(layout: Layout, moment: str = "none", act: Callable[[], None] = lambda: None) -> Snapshot:
    """Form it as the daemon does, from what the ledger says; `act` happens at the moment."""
    ledger = Ledger(layout.ledger)
    rows = ledger.in_home(Home.VALIDATED)
    classes = load_classes(layout.classes)
    plan = plan_dataset(rows, {media: Side(side) for media, side in ledger.sides().items()}, classes, SMALL, key="s")
    seen = 0

    def proceed() -> None:
        nonlocal seen
        seen += 1
        reach({1: "first", len(rows) // 2: "middle"}.get(seen))

    def reach(now: str | None) -> None:
        if now == moment:
            act()

    def record_sides(sides: Mapping[str, Side]) -> None:
        reach("synced")
        ledger.add_sides(sides)
        reach("recorded")

    match moment:
        case "described":
            _around(FilesystemSync, "__call__", before=act)
        case "named":
            _around(Path, "rename", after=act)
    try:
        return form_snapshot(plan, layout, classes, SMALL, position=1, now=NOW, record_sides=record_sides, proceed=proceed)
    finally:
        ledger.close()


def _around(owner: type, method: str, *, before: Callable[[], None] = lambda: None, after: Callable[[], None] = lambda: None) -> None:
    real = getattr(owner, method)

    def wrapped(*given: Any) -> Any:
        before()
        outcome = real(*given)
        after()
        return outcome

    setattr(owner, method, wrapped)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    print(form(Layout(Path(sys.argv[1])), sys.argv[2], _kill).id)
