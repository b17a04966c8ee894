"""install.sh, upgrade.sh and uninstall.sh, run for real in a root of their own, with the real daemon; only systemd has a stand-in."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.deploy.server import CHECKOUT, PREFIX, NoNamespacesError, Server, make_sources, make_wheelhouse

pytestmark = pytest.mark.timeout(300)  # virtual environments are made, and daemons started, beside whatever else a machine does
ENV = f"{PREFIX}/.env"
DATA = '/srv/the data "root" 100%'


class World:
    """Sources of two versions, and servers to install them on."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._servers = 0
        self.kept = directory / "kept"
        self.kept.mkdir()
        self._wheelhouse = make_wheelhouse(directory / "wheelhouse")
        self.places = directory / 'it\'s "checked out" here; $(touch /srv/injected)'
        self.old = make_sources(self.places / "old")
        self.new = make_sources(self.places / "new", change=_newer)

    def server(self) -> Server:
        self._servers += 1
        made = Server(self._directory / f"root-{self._servers}", self._wheelhouse, [self.places])
        return self._stack.enter_context(made)


def _newer(sources: Path) -> None:
    module = sources / "azaion_daemon" / "__init__.py"
    module.write_text(re.sub(r'__version__ = ".*"', '__version__ = "99.1"', module.read_text()))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if os.geteuid() != 0 and "CI" not in os.environ:
        pytest.skip("a root of its own needs root")
    with ExitStack() as stack:
        made = World(tmp_path_factory.mktemp("deploy"), stack)
        try:
            server = made.server()
        except NoNamespacesError as error:
            if "CI" in os.environ:
                raise
            pytest.skip(f"no root of its own can be had here: {error}")
        install(server, made)
        server.save(made.kept)
        yield made


def install(server: Server, world: World) -> None:
    """As an operator does: once (killed, again and again), then with values in .env."""
    for moment in ('mv -T "$new" "$dir"', "-m venv", "make_env_file", "install_unit"):
        killed = server.script(world.old, "install.sh", killed_at=moment)
        assert killed.status != 0, killed.said
        assert "is installed" not in killed.said
    first = server.script(world.old, "install.sh")
    assert first.status == 0, first.said
    assert f"put your values into {ENV}" in first.said
    assert not server.path(DATA).exists()
    env = server.path(ENV)
    values = env.read_text().replace("AZAION_ROOT_DIR=/azaion", f"AZAION_ROOT_DIR='{DATA}'")
    env.write_text(values.replace("https://api.azaion.com", "http://127.0.0.1:9"))
    second = server.script(world.old, "install.sh", "--init")
    assert second.status == 0, second.said
    server.path(f"{DATA}/classes.json").write_text('[{"Id": 0, "Name": "car"}]')


@pytest.fixture
def server(world: World) -> Iterator[Server]:
    """A server on which the old version is installed, and not started."""
    with world.server() as made:
        made.restore(world.kept)
        yield made


def start(server: Server) -> None:
    assert server.run("systemctl", "start", "azaion-daemon.service").status == 0, server.path("/stand-in/journal").read_text()


def as_daemon(*command: str) -> list[str]:
    return ["setpriv", "--reuid", "azaion", "--regid", "deploy", "--init-groups", *command]


def test_an_installation_is_what_the_unit_and_the_daemon_need(world: World, server: Server) -> None:
    name = server.link("current")
    assert re.fullmatch(r"\d+\.\d+\.\d+-[0-9a-f]{12}", name)
    assert server.versions() == {name}
    modes = server.run("stat", "-c", "%n %U:%G %a", PREFIX, ENV, f"{PREFIX}/config.yaml", f"{PREFIX}/versions", f"{PREFIX}/versions/{name}")
    assert modes.said.replace(f"{PREFIX}/", "").splitlines() == [
        f"{PREFIX} root:deploy 1775", ".env root:deploy 640", "config.yaml azaion:deploy 640", "versions root:root 755",
        f"versions/{name} root:root 755",
    ]  # fmt: skip
    assert server.run("id", "-nG", "azaion").said.split() == ["azaion", "deploy"]
    assert server.run("cmp", f"{PREFIX}/current/systemd/azaion-daemon.service", "/etc/systemd/system/azaion-daemon.service").status == 0
    quoted = DATA.replace('"', '\\"').replace("%", "%%")
    dropin = server.path("/etc/systemd/system/azaion-daemon.service.d/root.conf").read_text()
    assert f'RequiresMountsFor="{quoted}"\n' in dropin
    assert f'ReadWritePaths="{quoted}"\n' in dropin
    assert server.path(f"{DATA}/state/root.json").exists()
    assert not server.path("/srv/injected").exists()
    assert not any(call.startswith(("start", "enable")) for call in server.calls())
    start(server)
    assert server.running() == name


def test_the_commands_of_the_guide_work_as_they_are_printed(server: Server) -> None:
    guide = (CHECKOUT / "deploy" / "README.md").read_text()
    (alias,) = re.findall(r"^    (cd \S+\n    alias azaion-daemon=.*)$", guide, re.MULTILINE)
    (reload,) = re.findall(r"^    (azaion-daemon config render .*\n    azaion-daemon reload --wait)$", guide, re.MULTILINE)
    start(server)
    done = server.run("bash", "-ec", f"shopt -s expand_aliases\nPATH=$PATH:/usr/sbin\n{alias}\nazaion-daemon status\n{reload}")
    assert done.status == 0, done.said
    assert server.run("stat", "-c", "%U:%G %a", f"{PREFIX}/config.yaml").said == "azaion:deploy 640\n"


def test_a_disk_above_the_root_that_is_not_mounted_is_missed(world: World, server: Server) -> None:
    server.path("/etc/fstab").write_text("/dev/sdz1 /srv ext4 defaults 0 2\n")
    refused = server.script(world.old, "install.sh", "--init")
    assert (refused.status, "/srv is a disk of its own" in refused.said) == (1, True), refused.said


def test_settings_that_others_have_put_there_are_not_taken_over(world: World, server: Server) -> None:
    kept = f"{PREFIX}/config.template.yaml"
    before = server.path(f"{PREFIX}/current/config.template.yaml").read_bytes()
    for planted in (["ln", "-s", "/etc/shadow", kept], ["cp", "--remove-destination", f"{PREFIX}/current/config.template.yaml", kept]):
        assert server.run(*as_daemon(*planted)).status == 0
        refused = server.script(world.old, "install.sh")
        assert (refused.status, "no file of root's" in refused.said) == (1, True), refused.said
        assert server.run(*as_daemon("rm", kept)).status == 0
    assert server.path(f"{PREFIX}/current/config.template.yaml").read_bytes() == before


def test_installed_again_nothing_changes(world: World, server: Server) -> None:
    server.path(ENV).write_text(f"# ours\n{server.path(ENV).read_text()}")
    assert server.run("chown", "root:azaion", ENV).status == 0
    everything = (PREFIX, "/etc", DATA)

    def listing() -> list[str]:
        return [line for line in server.listing(*everything) if "ledger.db-shm" not in line]  # SQLite's, for whoever reads: doctor

    before, calls = listing(), server.calls()
    again = server.script(world.old, "install.sh", "--init")
    assert again.status == 0, again.said
    assert listing() == before
    assert server.calls() == calls


def test_a_server_that_cannot_have_it_is_left_as_it_is(world: World) -> None:
    with world.server() as server:
        server.run("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", "/opt")
        full = server.script(world.old, "install.sh")
        assert (full.status, "GiB are needed" in full.said) == (1, True), full.said
        assert server.link("current") == ""
        server.run("mkdir", "-p", f"{PREFIX}/current/.venv")
        by_hand = server.script(world.old, "install.sh")
        assert (by_hand.status, "an installation by hand" in by_hand.said) == (1, True), by_hand.said
        assert server.script(world.old, "install.sh", "--python", "/usr/bin/false").status == 1


def test_an_upgrade_changes_the_version_and_nothing_else_and_can_be_taken_back(world: World, server: Server) -> None:
    old = server.link("current")
    start(server)
    template = server.path(f"{PREFIX}/versions/{old}/config.template.yaml")
    template.write_text(f"{template.read_text()}\n# a setting of ours\n")
    training = server.start(
        *as_daemon(f"{PREFIX}/versions/{old}/.venv/bin/python", "-c", "import time; time.sleep(600)", "azaion_daemon.training.worker")
    )

    for moment in ("copy_ledger", "install_unit"):  # before the switch, and right after it
        assert server.script(world.new, "upgrade.sh", killed_at=moment).status != 0
        assert server.running() == old
    new = server.link("current")
    assert new.startswith("99.1-")
    refused = server.script(world.old, "install.sh")
    assert (refused.status, "an upgrade was cut short" in refused.said) == (1, True), refused.said

    done = server.script(world.new, "upgrade.sh")
    assert done.status == 0, done.said
    assert (server.link("current"), server.link("previous"), server.running()) == (new, old, new)
    assert server.path(f"{PREFIX}/versions/{new}/config.template.yaml").read_text().endswith("# a setting of ours\n")
    assert server.path(f"{PREFIX}/versions/{new}/ledger-before.db").stat().st_mode & 0o777 == 0o600
    assert training.poll() is None
    assert not server.path(f"{PREFIX}/versions/.switching").exists()

    back = server.script(f"{PREFIX}/current", "upgrade.sh", "--rollback")
    assert back.status == 0, back.said
    assert (server.link("current"), server.link("previous"), server.running()) == (old, new, old)


def break_a_copy_of(server: Server, version: str, fault: str = 'raise RuntimeError("a fault of this version")') -> str:
    """A version that passes every check that can be made before it is started; its own name."""
    name = "0.0.2-broken"
    directory = f"{PREFIX}/versions/{name}"
    server.run("cp", "-a", f"{PREFIX}/versions/{version}", directory)
    server.path(f"{directory}/.azaion-version").write_text(f"{name}\n")
    program = server.path(f"{directory}/.venv/bin/azaion-daemon")
    program.write_text(program.read_text().replace(version, name))
    (module,) = server.path(f"{directory}/.venv/lib").glob("python*/site-packages/azaion_daemon/daemon.py")
    module.write_text(module.read_text().replace("    open_root(layout)\n", f"    {fault}\n"))
    return name


def test_a_version_that_does_not_become_ready_is_taken_back(world: World, server: Server) -> None:
    old = server.link("current")
    start(server)
    places = (f"{DATA}/data", f"{DATA}/models", f"{DATA}/classes.json", "/etc/systemd")
    data = server.listing(*places)
    broken = break_a_copy_of(server, old)
    sources = f"{PREFIX}/versions/{broken}"
    failed = server.script(sources, "upgrade.sh", "--ready-timeout", "30")
    assert failed.status == 3, failed.said
    assert f"version {old} runs again" in failed.said
    assert (server.link("current"), server.link("previous"), server.running()) == (old, "", old)
    assert server.listing(*places) == data

    server.path(ENV).write_text(server.path(ENV).read_text().replace("TRAINING_EPOCHS=120", "TRAINING_EPOCHS=many"))
    refused = server.script(sources, "upgrade.sh")
    assert (refused.status, "training.epochs" in refused.said) == (1, True), refused.said
    assert (server.link("current"), server.running()) == (old, old)

    pruned = server.script(world.old, "upgrade.sh", "--prune")
    assert pruned.status == 0, pruned.said
    assert f"version {broken} is removed" in pruned.said
    assert server.versions() == {old}


def test_a_version_that_asks_for_ever_more_time_is_taken_back(world: World, server: Server) -> None:
    old = server.link("current")
    start(server)
    waits = break_a_copy_of(server, old, "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_DFL); time.sleep(600)")
    failed = server.script(f"{PREFIX}/versions/{waits}", "upgrade.sh", "--ready-timeout", "5")
    assert failed.status in {3, 4}, failed.said  # 4: a loaded machine starts the one before no faster
    assert server.link("current") == old
    assert f"version {waits} does not become ready" in failed.said


def test_versions_that_something_needs_stay(world: World, server: Server) -> None:
    current = server.link("current")
    versions = f"{PREFIX}/versions"
    for name in ("0.0.1-needed-by-a-job", "0.0.1-in-use", "0.0.1-previous", "0.0.1-needed-by-nobody", "0.0.1-ended"):
        server.run("cp", "-a", f"{versions}/{current}", f"{versions}/{name}")
        server.path(f"{versions}/{name}/.azaion-version").write_text(f"{name}\n")
    server.run("mkdir", "-p", f"{versions}/of an operator", f"{versions}/0.0.1-unmarked")
    server.run("ln", "-s", "versions/0.0.1-previous", f"{PREFIX}/previous")
    server.run("ln", "-s", DATA, f"{versions}/0.0.1-needed-by-nobody/a-link-to-the-data")
    server.start(*as_daemon(f"{versions}/0.0.1-in-use/.venv/bin/python", "-c", "import time; time.sleep(600)"))
    for job, state, release in (("20260101T000000Z", "queued", "0.0.1-needed-by-a-job"), ("20260102T000000Z", "failed", "0.0.1-ended")):
        put = (
            "import sys, pathlib, time; from azaion_daemon.store.ledger import Ledger; from azaion_daemon.store.records import Job\n"
            "root, job, state = sys.argv[1:4]\n"
            "Ledger(pathlib.Path(root) / 'state/ledger.db').put_job(Job(job, state, 'asked', time.time(), time.time(), "
            "ended=None if state == 'queued' else time.time()))\n"
            "directory = pathlib.Path(root) / 'state/jobs' / job; directory.mkdir()\n"
            "(directory / 'job.json').write_text(sys.argv[4])"
        )
        document = f'{{"python": "{versions}/{release}/.venv/bin/python"}}'
        done = server.run(*as_daemon(f"{versions}/{current}/.venv/bin/python", "-P", "-c", put, DATA, job, state, document))
        assert done.status == 0, done.said

    data = server.listing(f"{DATA}/data", f"{DATA}/models", f"{DATA}/classes.json")
    pruned = server.script(world.old, "upgrade.sh", "--prune")
    assert pruned.status == 0, pruned.said
    assert server.versions() == {
        current, "0.0.1-needed-by-a-job", "0.0.1-in-use", "0.0.1-previous", "of an operator", "0.0.1-unmarked"
    }  # fmt: skip
    assert server.listing(f"{DATA}/data", f"{DATA}/models", f"{DATA}/classes.json") == data
    server.path(f"{DATA}/state/root.json").rename(server.path(f"{DATA}/state/root.json.away"))  # as if the disk were not mounted
    unknown = server.script(world.old, "upgrade.sh", "--prune")
    assert "so none is removed" in unknown.said


def test_two_at_once_do_not_meet(world: World, server: Server) -> None:
    server.start("flock", f"{PREFIX}/versions/.lock", "sleep", "600")
    while server.run("flock", "--nonblock", f"{PREFIX}/versions/.lock", "true").status == 0:
        time.sleep(0.05)
    for script in ("install.sh", "upgrade.sh", "uninstall.sh"):
        refused = server.script(world.old, script)
        assert (refused.status, "at work" in refused.said) == (1, True), refused.said


def test_uninstalled_the_data_and_the_secrets_are_as_they_were(world: World, server: Server) -> None:
    current = server.link("current")
    start(server)
    worker = server.start(
        *as_daemon(f"{PREFIX}/versions/{current}/.venv/bin/python", "-c", "import time; time.sleep(600)", "azaion_daemon.training.worker")
    )
    refused = server.script(world.old, "uninstall.sh")
    assert (refused.status, "a training is under way" in refused.said) == (1, True), refused.said
    assert server.running() == current
    template = server.path(f"{PREFIX}/versions/{current}/config.template.yaml")
    template.write_text(f"{template.read_text()}\n# a setting of ours\n")
    server.path(f"{DATA}/data/images/annotation.jpg").write_bytes(b"an image")
    server.run("systemctl", "stop", "azaion-daemon.service")
    before = server.listing(DATA, ENV)

    done = server.script(f"{PREFIX}/current", "uninstall.sh", "--stop-trainings", "--remove-user")
    assert done.status == 0, done.said
    assert server.listing(DATA, ENV) == before
    assert worker.wait(timeout=10) != 0
    assert sorted(entry.name for entry in server.path(PREFIX).iterdir()) == [".env", "config.template.yaml"]
    assert not server.path("/etc/systemd/system/azaion-daemon.service").exists()
    assert not server.path("/etc/systemd/system/azaion-daemon.service.d").exists()
    assert server.run("getent", "passwd", "azaion").status != 0
