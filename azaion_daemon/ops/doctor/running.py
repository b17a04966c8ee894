"""Looking at subjects: side by side, in time, and none hides another."""

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

from azaion_daemon.errors import AzaionError, OperatorError
from azaion_daemon.logs import logging_to
from azaion_daemon.ops.doctor import broker, configuration, machine, publishing, root, training
from azaion_daemon.ops.doctor.findings import AS_THE_DAEMON, Area, Finding, Outcome, Subject
from azaion_daemon.ops.doctor.patient import Patient
from azaion_daemon.publish.platform import PlatformClient, RetryRule
from azaion_daemon.settings import Settings
from azaion_daemon.store.layout import Layout

P = TypeVar("P")

Progress = Callable[[int, Sequence[str]], None]
"""Told how many subjects are done, and the names of those that are being looked at."""


def subjects(settings: Settings) -> list[Subject[Patient]]:
    """What is looked at, in the order in which it is told."""
    return [
        *configuration.SUBJECTS,
        *root.SUBJECTS,
        *broker.SUBJECTS,
        *training.SUBJECTS,
        *publishing.subjects(settings),
        *machine.SUBJECTS,
    ]


def selected(subjects: Sequence[Subject[P]], only: Sequence[str]) -> list[Subject[P]]:
    """Those that are asked for, by area or by name, and what they need; all of them when nothing is asked for.

    Raises:
        OperatorError: Nothing is called so.
    """
    if not only:
        return list(subjects)
    by_name = {one.name: one for one in subjects}
    wanted: set[str] = set()
    for asked in only:
        found = {one.name for one in subjects if asked.lower() in {one.name.lower(), one.area.value}}
        if not found:
            areas = ", ".join(area.value for area in Area)
            raise OperatorError(f"there is nothing to look at that is called {asked}. Areas are: {areas}; subjects: {', '.join(by_name)}.")
        wanted |= found
    waiting = list(wanted)
    while waiting:
        needed = set(by_name[waiting.pop()].needs) - wanted
        wanted |= needed
        waiting += needed
    return [one for one in subjects if one.name in wanted]


async def look(subjects: Sequence[Subject[P]], patient: P, *, progress: Progress = lambda _, __: None) -> dict[str, Finding]:
    """What was found out about each subject, in their order."""
    found: dict[str, Finding] = {}
    done = {subject.name: asyncio.Event() for subject in subjects}
    begun: list[str] = []

    def tell() -> None:
        progress(len(found), [name for name in begun if name not in found])

    async def one(subject: Subject[P]) -> None:
        for other in (*subject.needs, *subject.after):
            if other in done:
                await done[other].wait()
        begun.append(subject.name)
        tell()
        found[subject.name] = await _look_at(subject, patient, found)
        done[subject.name].set()
        tell()

    async with asyncio.TaskGroup() as tasks:
        for subject in subjects:
            tasks.create_task(one(subject), name=subject.name)
    return {subject.name: found[subject.name] for subject in subjects}


async def _look_at(subject: Subject[P], patient: P, found: Mapping[str, Finding]) -> Finding:
    if missing := [need for need in subject.needs if found[need].outcome in {Outcome.BROKEN, Outcome.UNCHECKED}]:
        return Finding(Outcome.UNCHECKED, f"it needs the {', '.join(missing)}")
    try:
        async with asyncio.timeout(subject.limit_s):
            return await subject.look(patient)
    except TimeoutError:
        return Finding(Outcome.BROKEN, f"no answer within {subject.limit_s:g} s", "Check the network and the other side's load")
    except AzaionError as error:
        return Finding.of(error)
    except OSError as error:
        return Finding(Outcome.BROKEN, f"{error.filename or 'it'} cannot be read: {error.strerror or error}", AS_THE_DAEMON)
    except Exception as error:  # noqa: BLE001 - a fault of ours in one must not hide what the others find
        return Finding(
            Outcome.BROKEN, f"it cannot be looked at: {type(error).__name__}: {error}", "A fault of this program: please report it"
        )


def examine(
    settings: Settings, layout: Layout, config: Path, *, only: Sequence[str] = (), progress: Progress = lambda _, __: None
) -> dict[str, Any]:
    """Look at everything, or `only` at some; `ok` says whether nothing is broken. Secrets are not in it.

    Raises:
        OperatorError: Nothing is called as in `only`.
    """
    chosen = selected(subjects(settings), only)

    async def findings() -> dict[str, Finding]:
        once = RetryRule(attempts=1)
        async with PlatformClient(settings.api, layout.hardware, retry=once) as platform, AsyncExitStack() as opened:
            return await look(chosen, Patient(settings, layout, platform, opened, config), progress=progress)

    with logging_to(sys.stderr, level="warning", style=settings.log.format):
        found = asyncio.run(findings())
    return {
        "ok": all(finding.outcome is not Outcome.BROKEN for finding in found.values()),
        "findings": [
            {
                "area": subject.area.value,
                "subject": subject.name,
                "outcome": found[subject.name].outcome.value,
                "detail": found[subject.name].detail,
                "remedy": found[subject.name].remedy or None,
            }
            for subject in chosen
        ],
    }
