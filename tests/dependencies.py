"""What comes in with the locked dependencies: `python -m tests.dependencies`, a part of `make lint`.

Always looked at, without a network: every requirement is pinned to one version, and that one is installed; what is installed fits
together (`pip check`); every licence may be combined with the AGPL; nothing that is imported is undeclared, nothing declared is unused
(deptry). Known vulnerabilities are looked up by pip-audit, at PyPI or at OSV, where one of them answers; where none does, that is said.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from email.message import Message
from importlib import metadata
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

LOCKS = (Path("requirements/server.txt"), Path("requirements/dev.txt"), Path("requirements/gpu.txt"))

IGNORED: Mapping[str, str] = {}
"""Vulnerabilities that are known and do not matter here: their id -> why not. Nothing is ignored without a reason."""

LICENCES = re.compile(
    r"(?x) MIT(-0|-CMU)? | MIT\ License | (New\ |Modified\ )?(3-Clause\ )?BSD(-[23]-Clause|\ License|\ 3-Clause)? | 0BSD "
    r"| ISC(\ License.*)? | Zlib | CC0-1\.0 | BSL-1\.0 | Unlicense | PSF-2\.0 | Python-2\.0 | Python\ Software\ Foundation\ License | HPND "
    r"| Apache-2\.0(\ WITH\ LLVM-exception)? | Apache\ Software\ License | Apache\ (License\ )?2\.0 | DFSG\ approved "
    r"| MPL-2\.0 | Mozilla\ Public\ License\ 2\.0\ \(MPL\ 2\.0\) | LGPL-[23][0-9.]*(-only|-or-later)? "
    r"| (A?GPL-3\.0|AGPL-3\.0)(-only|-or-later)? | GNU\ (Affero\ )?General\ Public\ License\ v3(\ or\ later)?\ \(A?GPLv3\+?\)"
)
"""Those that may be combined with AGPL-3.0, as SPDX and as the registry's classifiers name them."""
OTHER_LICENCES: Mapping[str, str] = {
    r"nvidia-.*|cuda-.*": "NVIDIA's runtime of CUDA: each site fetches it from the registry by itself, none of it is passed on here",
}
"""Distributions whose licence is none of these: their names -> why they are here all the same."""


class Locked(NamedTuple):
    """A pinned requirement."""

    name: str
    version: str


def pins(lock: str) -> tuple[list[Locked], list[str]]:
    """The requirements of a lock file, and what in it is not pinned to one version."""
    pinned, loose = [], []
    for line in lock.splitlines():
        requirement = line.split(" #")[0].split(" \\")[0].strip()
        if not requirement or requirement.startswith(("#", "--hash=")):
            continue
        if found := re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([0-9][A-Za-z0-9.!+_]*)( ?;.*)?", requirement):
            pinned.append(Locked(found[1], found[2]))
        else:
            loose.append(requirement)
    return pinned, loose


def licences(described: Message) -> list[str]:
    """What a distribution says that it may be used under: all of it applies, but for what is one of several by its own words."""
    if expression := described.get("License-Expression"):
        return [choice[0] for part in re.split(r" AND ", expression) if (choice := sorted(part.strip("()").split(" OR "), key=_unknown))]
    classifiers = [line.split(" :: ")[-1] for line in described.get_all("Classifier") or [] if line.startswith("License :: ")]
    if any(map(LICENCES.fullmatch, classifiers)):  # the registry knows no other way to say "one of these"
        return [next(one for one in classifiers if LICENCES.fullmatch(one))]
    return classifiers or [(described.get("License") or "none that is named").split("\n")[0][:60]]


def _unknown(licence: str) -> bool:
    return LICENCES.fullmatch(licence) is None


def licence_problem(name: str, described: Message) -> str | None:
    """Why a distribution may not be here; None when it may."""
    if any(re.fullmatch(pattern, name) for pattern in OTHER_LICENCES):
        return None
    unknown = [licence for licence in licences(described) if _unknown(licence)]
    return f"{name}: its licence ({', '.join(unknown)}) is none that is known to fit the AGPL" if unknown else None


def vulnerabilities(report: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Of a report of pip-audit: what is vulnerable and not ignored, and what was not looked at."""
    found, skipped = [], []
    for one in report["dependencies"]:
        if "skip_reason" in one:
            skipped.append(one["name"])
        for known in one.get("vulns", ()):
            if not {known["id"], *known.get("aliases", ())} & IGNORED.keys():
                mended = ", ".join(known.get("fix_versions", ())) or "no version"
                found.append(f"{one['name']} {one['version']}: {known['id']}, mended in {mended}")
    return found, skipped


def check_pins() -> Iterator[str]:
    """Pinned, and installed as pinned."""
    for lock in LOCKS:
        pinned, loose = pins(lock.read_text())
        yield from (f"{lock}: {line} is not pinned to one version" for line in loose)
        for name, version in pinned:
            try:
                installed = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue  # for another platform, or another Python
            if installed.split("+")[0] != version.split("+")[0]:
                yield f"{lock}: {name} is {version} there and {installed} here. Run `make setup`, or `make lock`"


def check_licences() -> Iterator[str]:
    """Compatible with ours."""
    for name in sorted({one.name for one in locked()}):
        try:
            problem = licence_problem(name, metadata.metadata(name))  # type: ignore[arg-type]  # it is a Message
        except metadata.PackageNotFoundError:
            continue
        if problem:
            yield problem


def check_whole() -> Iterator[str]:
    """What is installed fits together."""
    done = _run("pip", "check", "--disable-pip-version-check")
    if done.returncode:
        yield from done.stdout.splitlines()


def check_use() -> Iterator[str]:
    """Declared, and used."""
    done = _run("deptry", "--no-ansi", ".")
    if done.returncode:
        yield from (line for line in done.stderr.splitlines() if "DEP0" in line) if "DEP0" in done.stderr else (done.stderr.strip(),)


def check_vulnerabilities() -> Iterator[str]:
    """None that is known, as far as somebody can be asked."""
    packages = locked()
    silent = []
    for service in ("pypi", "osv"):
        report = audit(packages[:1], service)  # a service that is away would be waited for with each of them
        if not isinstance(report, str):
            report = audit(packages, service)
        if isinstance(report, str):
            silent.append(f"{service}: {report}")
            continue
        found, skipped = vulnerabilities(report)
        if skipped:
            print(f"not audited for vulnerabilities: {', '.join(skipped)} ({service} does not know them)")
        yield from found
        return
    print(f"not audited for vulnerabilities: {len(packages)} locked packages, since no service that has advisories answers from here")
    for why in silent:
        print(f"  {why}")


def locked() -> list[Locked]:
    """What any of the locks has, once."""
    return sorted({one for lock in LOCKS for one in pins(lock.read_text())[0]})


def audit(packages: Sequence[Locked], service: str) -> Mapping[str, Any] | str:
    """What pip-audit finds out about some packages; why it does not, when the service does not answer or knows none of them."""
    with NamedTemporaryFile("w", suffix=".txt") as lock:
        lock.write("".join(f"{name}=={version}\n" for name, version in packages))
        lock.flush()
        asked = ("-r", lock.name, "--no-deps", "--disable-pip", "-s", service, "-f", "json", "--progress-spinner", "off", "--timeout", "5")
        done = _run("pip_audit", *asked)
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        return (done.stderr.strip() or f"pip-audit ended with {done.returncode}").splitlines()[-1][:200]
    # What it could not look up it says with success.
    return "it knows none of them" if len(vulnerabilities(report)[1]) == len(report["dependencies"]) else report


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)


CHECKS: tuple[Callable[[], Iterator[str]], ...] = (check_pins, check_whole, check_licences, check_use, check_vulnerabilities)


def main() -> int:
    """Run every check; 1 when one has found something."""
    problems = [problem for check in CHECKS for problem in check()]
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
