"""The configuration that was read, and who else may read or change its files."""

import asyncio
import os
import pwd
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from azaion_daemon.ops.doctor.findings import Area, Finding, Outcome, Subject
from azaion_daemon.ops.doctor.patient import Patient
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.modes import open_secrets, secret_files


async def _settings(patient: Patient) -> Finding:
    if patient.settings.publish.model_key is None:
        return Finding(
            Outcome.WARNING,
            "it can be used, but no model key is set: models are trained, releases wait",
            "Set AZAION_MODEL_KEY, then: azaion-daemon config render",
        )
    return Finding.ok("it can be used, and the model key is set")


async def _files(patient: Patient) -> Finding:
    assert patient.config is not None
    return await asyncio.to_thread(judge_files, secret_files(patient.settings, patient.config.absolute()))


def judge_files(paths: Sequence[Path]) -> Finding:
    """Whether files that hold secrets are open to others. One that is not there is passed over."""
    if opened := open_secrets(*paths):
        return Finding(
            Outcome.WARNING,
            "; ".join(f"others than its owner and its group may use the secrets in {one.path} (mode {one.mode:o})" for one in opened),
            "; ".join(f"chmod o-rwx,g-w {one.path}" for one in opened),
        )
    there = ", ".join(str(path) for path in paths if path.exists())
    return Finding.ok(f"the secrets are closed to others: {there}")


async def _user(patient: Patient) -> Finding:
    """Rights are those of whoever looks, so it must be known who that is."""
    user = _name(os.geteuid())
    owner = await asyncio.to_thread(owner_of, patient.layout)
    if owner is None:
        return Finding.ok(f"doctor runs as {user}; what it says of rights holds for that user")
    if owner != os.geteuid():
        return Finding(
            Outcome.WARNING,
            f"doctor runs as {user}, and the root belongs to {_name(owner)}: what it says of rights may not hold for the daemon",
            f"Run it as the user of the daemon: runuser -u {_name(owner)} -- azaion-daemon doctor",
        )
    return Finding.ok(f"doctor runs as {user}, to whom the root belongs")


def owner_of(layout: Layout) -> int | None:
    """To whom a root belongs, which is the user of the daemon; None where there is none yet."""
    for path in (layout.root_id, layout.root):
        with suppress(OSError):
            return path.stat().st_uid
    return None


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


SUBJECTS = (
    Subject("settings", _settings, area=Area.CONFIGURATION),
    Subject("configuration files", _files, area=Area.CONFIGURATION),
    Subject("user", _user, area=Area.CONFIGURATION),
)
