"""The table of deploy/README.md, Permissions, held against everything that a run has made."""

import stat
from pathlib import Path

_SECRETS = {"signing.pem", "hardware.txt", "login-refused.json"}
_READ_ONLY = {"manifest.jsonl", "excluded.jsonl", "data.yaml", "dataset.json"}
_UNSHARED = 0o600
_LIBRARYS_OWN = ("run", "home")


def expected(path: Path, root: Path) -> set[int]:
    """The modes that a file or directory below a root may have."""
    below = path.relative_to(root).parts
    if path == root:
        return {0o750, 0o755}  # the operator's own; the daemon takes from others only to write there
    if path.is_dir():
        return {0o700} if below[:2] == ("state", "requests") else {0o750}
    match below:
        case ("state", "requests", _):  # nobody else can enter the directory
            modes = {0o640, 0o644}
        case ("state", "releases", name) if not name.endswith(".json"):  # what an attempt works with
            modes = {_UNSHARED}
        case ("state", name) if name in _SECRETS:
            modes = {_UNSHARED}
        case ("state", "jobs", _, part, *_) if part in _LIBRARYS_OWN:
            modes = {0o640, _UNSHARED}  # as the library and its temporary files have it
        case ("datasets", _, name) if name in _READ_ONLY:
            modes = {0o440}
        case _:
            modes = {0o640}
    return modes


def faults(root: Path) -> dict[str, str]:
    """What differs from the table, below a root and of itself."""
    found = {}
    for path in (root, *root.rglob("*")):
        if path.is_symlink():
            continue
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode not in expected(path, root):
            found[str(path.relative_to(root))] = f"{mode:04o}"
    return found
