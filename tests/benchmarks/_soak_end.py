"""What a soak has left: is everything where it should be, once, through, and gone where it should be gone?"""

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from azaion_daemon.errors import AzaionError
from azaion_daemon.sandbox.operator import RunningDaemon
from azaion_daemon.training.processes import JOB_VARIABLE
from tests.benchmarks._soak_figures import Findings
from tests.benchmarks._soak_site import SoakSite
from tests.faults.ground import Damage, heard
from tests.faults.story import Act, Story

_MOST_SHOWN = 400


def while_running(site: SoakSite, daemon: RunningDaemon) -> list[str]:
    """What is not as it should be, seen from beside the daemon that has nothing more to do."""
    found = [f"not through: {one}" for one in site.busy()]
    found += [f"child process: {child}" for child in psutil.Process(daemon.process.pid).children(recursive=True)]
    found += [f"request: {path.name}" for path in (site.root / "state" / "requests").glob("*.json")]
    found += _commands(site)
    if any(release["state"] == "published" for release in site.status()["releases"]):
        found += _published(site)
    return found


def _commands(site: SoakSite) -> list[str]:
    """Tree and ledger differ in nothing, every image is the one that the ledger knows; nothing is broken."""
    operator = site.ground.site.operator
    checked = operator.try_command("index", "check", "--deep")
    diagnosed = operator.try_command("doctor")
    found = []
    if checked.returncode:
        found.append(f"index check --deep ends with {checked.returncode}: {(checked.stdout + checked.stderr).strip()[:_MOST_SHOWN]}")
    if diagnosed.returncode:
        broken = [line for line in diagnosed.stdout.splitlines() if line.startswith("broken")] or [diagnosed.stderr.strip()]
        found.append(f"doctor ends with {diagnosed.returncode}: {' / '.join(broken)[:_MOST_SHOWN]}")
    return found


def _published(site: SoakSite) -> list[str]:
    """What consumers get is the current model, by the product's word and by that of a consumer that shares no code with it."""
    verified = site.ground.site.operator.try_command("model", "verify")
    found = [] if verified.returncode == 0 else [f"model verify: {(verified.stdout + verified.stderr).strip()[:_MOST_SHOWN]}"]
    try:
        plaintext = site.world.consumer().download()
    except AzaionError as error:
        return [*found, f"a consumer cannot download: {error}"]
    if not plaintext.endswith((site.root / "models" / "azaion.onnx").read_bytes()):
        found.append("a consumer downloads another model than the current one")
    return found


def after_its_end(site: SoakSite, story: Story, acts: Sequence[Act], unsettled: Sequence[str]) -> Findings:
    """Compare what was left with the truth of the stream; the daemon has ended."""
    truth = heard(site.world.broker, site.world.stream, story, acts, last=acts[-1].message.body)
    damage: Damage = site.ground.damage(truth)
    left = [*unsettled, *(f"process of a job: {one}" for one in _workers(site.root))]
    if (size := _size(site.root / "state" / "ledger.db-wal")) > 0:
        left.append(f"a write-ahead log of {size} bytes after an orderly end")
    with sqlite3.connect(f"file:{site.root}/state/ledger.db?mode=ro", uri=True) as db:
        (sound,) = db.execute("PRAGMA integrity_check").fetchone()
    db.close()
    if sound != "ok":
        left.append(f"the ledger's integrity: {sound}")
    return Findings(tuple(damage.lost), tuple(damage.doubled), tuple(damage.torn), tuple(left))


def _workers(root: Path) -> list[str]:
    """Processes that belong to a job under this root."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(JOB_VARIABLE, "").startswith(f"{root}{os.sep}"):
                found.append(str(process))
    return found


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def events(log: Path, keep: Callable[[str], bool] = lambda level: level != "debug") -> Counter[str]:
    """How often the daemon has said what, by level and event. Lines that are no event count as `not JSON`."""
    said: Counter[str] = Counter()
    with log.open("rb") as lines:
        for line in lines:
            try:
                event = json.loads(line)
                name, level = event["event"], event["level"]
            except (ValueError, KeyError, TypeError):
                said["not JSON"] += 1
                continue
            if keep(level):
                said[f"{level} {name}"] += 1
    return said
