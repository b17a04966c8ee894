"""Directories that the daemon trusts: closed to others, and refused when they belong to somebody else."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from azaion_daemon.errors import RootError
from azaion_daemon.ops.requests import ask, pending
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.modes import Opened, close_root, open_secrets
from azaion_daemon.store.root import init_root

_SOMEBODY, _SOMEBODY_ELSE = 12345, 54321
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be other users")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "azaion")
    init_root(made)
    return made


@pytest.fixture
def as_somebody(layout: Layout) -> Iterator[None]:
    """The root belongs to another user, who runs the daemon."""
    for above in layout.root.parents:  # pytest makes its directories for root alone
        if above.stat().st_mode & 0o011 != 0o011:
            above.chmod(above.stat().st_mode | 0o011)
    for path in (layout.root, *layout.root.rglob("*")):
        os.chown(path, _SOMEBODY, _SOMEBODY)
    os.seteuid(_SOMEBODY)
    yield
    os.seteuid(0)


def test_init_leaves_nothing_open(layout: Layout) -> None:
    assert close_root(layout) == []
    assert stat.S_IMODE(layout.requests.stat().st_mode) == 0o700
    assert stat.S_IMODE(layout.state.stat().st_mode) == 0o750


def test_a_root_of_ones_own_is_closed_by_its_user(layout: Layout) -> None:
    layout.jobs.chmod(0o777)
    assert close_root(layout) == [Opened(layout.jobs, 0o777, 0o750)]
    assert close_root(layout) == []


@needs_root
def test_a_directory_of_another_user_is_refused(layout: Layout, as_somebody: None) -> None:
    os.seteuid(0)
    os.chown(layout.jobs, _SOMEBODY_ELSE, _SOMEBODY)
    os.seteuid(_SOMEBODY)
    with pytest.raises(RootError, match=rf"jobs belongs to the user {_SOMEBODY_ELSE}.*chown -R {_SOMEBODY}"):
        close_root(layout)


@needs_root
def test_a_directory_that_root_has_left_open_is_said_and_does_not_stop_the_daemon(layout: Layout, as_somebody: None) -> None:
    os.seteuid(0)
    os.chown(layout.models, 0, _SOMEBODY)
    layout.models.chmod(0o775)
    os.seteuid(_SOMEBODY)
    assert close_root(layout) == [Opened(layout.models, 0o775, 0o775)]


@needs_root
def test_nobody_but_the_daemons_user_and_root_can_ask_anything_of_it(layout: Layout, as_somebody: None) -> None:
    os.seteuid(0)
    before = os.umask(0o077)
    ask(layout, "train_now", {"reason": "root asks"}, wait_s=0)  # no daemon runs
    os.umask(before)
    os.seteuid(_SOMEBODY)
    assert [request.arguments["reason"] for request in pending(layout)] == ["root asks"]
    os.seteuid(0)
    os.setegid(_SOMEBODY)  # another user, of the daemon's own group
    os.seteuid(_SOMEBODY_ELSE)
    try:
        with pytest.raises(PermissionError):
            (layout.requests / "mine.json").write_text("{}")
        with pytest.raises(PermissionError):
            layout.requests.rename(layout.state / "theirs")
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.mark.parametrize(("mode", "is_open"), [(0o600, False), (0o640, False), (0o400, False), (0o644, True), (0o660, True), (0o602, True)])
def test_a_secret_that_others_can_read_is_found(tmp_path: Path, mode: int, *, is_open: bool) -> None:
    secret = tmp_path / "cdn.yaml"
    secret.write_text("")
    secret.chmod(mode)
    assert bool(open_secrets(secret, tmp_path / "absent")) is is_open
