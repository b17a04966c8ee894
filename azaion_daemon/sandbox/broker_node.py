"""How a RabbitMQ node with the stream plugin is run: from the distribution's package, or in a container where there is none.

Both serve the stream protocol alone, on one loopback port (and on another with TLS, if asked), with users and permissions imported at boot
from `definitions.json`.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from typing_extensions import override

from azaion_daemon.sandbox.processes import LOOPBACK, ReservedPort, SandboxError, end, listening, spawn, wait_until

# The scripts beside these in /usr/sbin change the user and start an epmd on all addresses.
SCRIPTS = Path("/usr/lib/rabbitmq/bin")
IMAGE = "rabbitmq:3.13"
TLS_FILES = ("ca.pem", "broker.pem", "broker.key")

_BOOT_TIMEOUT_S = 60.0  # 3 to 8 s are usual; a container's image may have to be fetched, see _FETCH_TIMEOUT_S
_FETCH_TIMEOUT_S = 600.0
_STOP_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Tls:
    """A second listener, with TLS."""

    certified: tuple[str, ...] = (LOOPBACK,)
    """The addresses that the broker's certificate is for."""
    advertised_host: str = LOOPBACK
    """Older brokers advertise one for both listeners."""
    demands_certificate: bool = False
    """Whether a client needs one of its own."""


class Node(Protocol):
    """One RabbitMQ node that keeps its data and its ports over restarts."""

    port: int
    tls_port: int | None

    def start(self) -> None:
        """Start and wait until it is ready. Raises SandboxError."""

    def stop(self, how: signal.Signals) -> None:
        """End it with SIGTERM or SIGKILL, and wait for that. Nothing when it is not running."""

    def freeze(self, *, frozen: bool) -> None:
        """Stop it from running without ending it, or let it go on."""

    def control(self, *arguments: str) -> None:
        """Run `rabbitmqctl` on it while it runs. Takes seconds."""

    def close(self) -> None:
        """End it and give everything back but its data."""


def node_for(directory: Path, definitions: str, tls: Tls | None = None) -> Node:
    """The node that this machine can run; `definitions` is RabbitMQ's JSON of users and permissions.

    For TLS, `directory` has `tls` with the files that `TLS_FILES` names.

    Raises:
        SandboxError: There is neither RabbitMQ nor a Docker engine; the message says what to install.
    """
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "definitions.json").write_text(definitions)
    (directory / "enabled_plugins").write_text("[rabbitmq_stream].\n")
    if (SCRIPTS / "rabbitmq-server").exists():
        return InstalledNode(directory, tls)
    if docker_answers():
        return ContainerNode(directory, tls)
    raise SandboxError(
        f"RabbitMQ is not installed (no {SCRIPTS}/rabbitmq-server), and no Docker engine answers. Do one of: run `make setup` as root; "
        "`apt-get install rabbitmq-server`; start Docker."
    )


def docker_answers() -> bool:
    """Whether there is a Docker engine that we may use."""
    if shutil.which("docker") is None:
        return False
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _tls_configuration(tls: Tls, *, listen: str, advertised_port: int, files: Path | str) -> str:
    ca, certificate, key = (f"{files}/{name}" for name in TLS_FILES)
    return f"""\
stream.listeners.ssl.1 = {listen}
stream.advertised_tls_host = {tls.advertised_host}
stream.advertised_tls_port = {advertised_port}
ssl_options.cacertfile = {ca}
ssl_options.certfile = {certificate}
ssl_options.keyfile = {key}
ssl_options.verify = {"verify_peer" if tls.demands_certificate else "verify_none"}
ssl_options.fail_if_no_peer_cert = {"true" if tls.demands_certificate else "false"}
"""


def _configuration(*, listen: str, advertised_host: str, advertised_port: int, definitions: Path | str) -> str:
    return f"""\
listeners.tcp = none
stream.listeners.tcp.1 = {listen}
stream.advertised_host = {advertised_host}
stream.advertised_port = {advertised_port}
load_definitions = {definitions}
loopback_users = none
log.console = true
log.console.level = info
log.file = false
"""


class InstalledNode(Node):
    """A private node of the installed RabbitMQ, without root: its files, ports, cookie and epmd are its own.

    It says READY on a notify socket of ours, as it would to systemd; the process that we started is then the broker itself. epmd would
    outlive the node that starts it, so it is our child too, started first.
    """

    def __init__(self, directory: Path, tls: Tls | None) -> None:
        self._directory = directory
        self._stream, self._distribution, self._epmd_port = ReservedPort(), ReservedPort(), ReservedPort()
        self._tls = None if tls is None else ReservedPort()
        self.port = self._stream.number
        self.tls_port = None if self._tls is None else self._tls.number
        self._notify_name = f"azaion-sandbox-{secrets.token_hex(8)}"
        self._notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notifications.bind(f"\0{self._notify_name}")
        self._notifications.settimeout(0.2)
        self._log = directory / "console.log"
        self._broker: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        configuration = _configuration(
            listen=f"{LOOPBACK}:{self.port}",
            advertised_host=LOOPBACK if tls is None else tls.advertised_host,
            advertised_port=self.port,
            definitions=directory / "definitions.json",
        )
        if tls is not None and self.tls_port is not None:
            configuration += _tls_configuration(
                tls, listen=f"{LOOPBACK}:{self.tls_port}", advertised_port=self.tls_port, files=directory / "tls"
            )
        (directory / "rabbitmq.conf").write_text(configuration)

    @override
    def start(self) -> None:
        environment = self._environment()
        if self._epmd is None:
            port = self._epmd_port.number
            command = ["epmd", "-address", LOOPBACK, "-port", str(port)]
            self._epmd = spawn(command, log=self._log, cwd=self._directory, environment=environment)
            wait_until(lambda: listening(port), timeout_s=10, what="epmd", process=self._epmd, log=self._log)
        environment["NOTIFY_SOCKET"] = f"@{self._notify_name}"
        self._broker = spawn([SCRIPTS / "rabbitmq-server"], log=self._log, cwd=self._directory, environment=environment)
        wait_until(
            lambda: _says_ready(self._notifications), timeout_s=_BOOT_TIMEOUT_S, what="RabbitMQ", process=self._broker, log=self._log
        )

    @override
    def stop(self, how: signal.Signals) -> None:
        if self._broker is not None:
            end(self._broker, how=how, timeout_s=_STOP_TIMEOUT_S)
            self._broker = None

    @override
    def freeze(self, *, frozen: bool) -> None:
        if self._broker is None:
            raise SandboxError("the broker is not running, so it cannot be frozen or thawed; start it first")
        self._broker.send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    @override
    def control(self, *arguments: str) -> None:
        _run([str(SCRIPTS / "rabbitmqctl"), *arguments], "rabbitmqctl", environment=self._environment())

    @override
    def close(self) -> None:
        self.stop(signal.SIGTERM)
        if self._epmd is not None:
            end(self._epmd, how=signal.SIGKILL)  # it has no state, and takes no notice of SIGTERM for a while
            self._epmd = None
        self._notifications.close()
        for port in (self._stream, self._tls, self._distribution, self._epmd_port):
            if port is not None:
                port.release()

    def _environment(self) -> dict[str, str]:
        home = self._directory
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(home),  # the cookie lies here
            "RABBITMQ_NODENAME": "sandbox@localhost",
            "RABBITMQ_CONF_ENV_FILE": str(home / "none.conf"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "none.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(home / "data"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_SCHEMA_DIR": str(home / "schema"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(home / "generated"),
            "RABBITMQ_LOG": "-color",
            "RABBITMQ_PID_FILE": str(home / "pid"),
            "RABBITMQ_DIST_PORT": str(self._distribution.number),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_PORT": str(self._epmd_port.number),
            "ERL_EPMD_ADDRESS": LOOPBACK,
        }


def _says_ready(notifications: socket.socket) -> bool:
    with suppress(TimeoutError):
        return b"READY=1" in notifications.recv(4096)
    return False


class ContainerNode(Node):
    """The same node in a container, whose data is a volume of its own.

    The container ends when its standard input does, which the engine closes when our client dies: so it goes with us, however we end.
    """

    _RUN = (
        "exec 3<&0; docker-entrypoint.sh rabbitmq-server & broker=$!; "
        '(cat <&3 >/dev/null; kill -KILL "$broker") & trap \'kill -TERM "$broker"\' TERM; wait "$broker"; wait "$broker"'
    )

    def __init__(self, directory: Path, tls: Tls | None) -> None:
        self._directory = directory
        self._stream = ReservedPort()
        self._tls = None if tls is None else ReservedPort()
        self.port = self._stream.number
        self.tls_port = None if self._tls is None else self._tls.number
        self._log = directory / "console.log"
        self._name = f"azaion-sandbox-{os.getpid()}-{self.port}"
        self._client: subprocess.Popen[bytes] | None = None
        configuration = _configuration(
            listen="5552",
            advertised_host=LOOPBACK if tls is None else tls.advertised_host,
            advertised_port=self.port,
            definitions="/etc/rabbitmq/definitions.json",
        )
        self._files = ["rabbitmq.conf", "definitions.json", "enabled_plugins"]
        if tls is not None and self.tls_port is not None:
            configuration += _tls_configuration(tls, listen="5551", advertised_port=self.tls_port, files="/etc/rabbitmq/tls")
            self._files += [f"tls/{name}" for name in TLS_FILES]
        (directory / "rabbitmq.conf").write_text(configuration)
        for name in self._files:
            (directory / name).chmod(0o644)  # another user reads them in there

    @override
    def start(self) -> None:
        if not self._docker("image", "inspect", IMAGE, check=False):
            self._docker("pull", "--quiet", IMAGE, timeout_s=_FETCH_TIMEOUT_S)
        files = [f"{self._directory / name}:/etc/rabbitmq/{name}:ro" for name in self._files]
        volumes = [f"{self._name}:/var/lib/rabbitmq", *files]
        options = [option for volume in volumes for option in ("--volume", volume)]
        command = ["docker", "run", "--interactive", "--rm", "--name", self._name, "--hostname", "sandbox", *options]
        command += ["--publish", f"{LOOPBACK}:{self.port}:5552"]
        if self.tls_port is not None:
            command += ["--publish", f"{LOOPBACK}:{self.tls_port}:5551"]
        command += [IMAGE, "sh", "-c", self._RUN]
        self._client = spawn(command, log=self._log, cwd=self._directory, environment=os.environ, stdin=subprocess.PIPE)
        wait_until(
            lambda: listening(self.port), timeout_s=_BOOT_TIMEOUT_S, what="RabbitMQ's container", process=self._client, log=self._log
        )

    @override
    def stop(self, how: signal.Signals) -> None:
        if self._client is None:
            return
        self._docker("unpause", self._name, check=False)
        self._docker("kill", "--signal", how.name, self._name, check=False)
        with suppress(subprocess.TimeoutExpired):
            self._client.wait(_STOP_TIMEOUT_S)
        end(self._client)
        self._client = None

    @override
    def freeze(self, *, frozen: bool) -> None:
        self._docker("pause" if frozen else "unpause", self._name)

    @override
    def control(self, *arguments: str) -> None:
        self._docker("exec", self._name, "rabbitmqctl", *arguments)

    @override
    def close(self) -> None:
        self.stop(signal.SIGTERM)
        self._docker("volume", "rm", "--force", self._name, check=False)
        for port in (self._stream, self._tls):
            if port is not None:
                port.release()

    def _docker(self, *arguments: str, timeout_s: float = 30, check: bool = True) -> bool:
        what = f"docker {arguments[0]}"
        return _run(["docker", *arguments], what, timeout_s=timeout_s, check=check)


def _run(command: list[str], what: str, *, environment: dict[str, str] | None = None, timeout_s: float = 30, check: bool = True) -> bool:
    """Run a command of the node's; whether it succeeded. Its arguments, among which may be a password, are not shown."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, env=environment)
    except subprocess.TimeoutExpired:
        raise SandboxError(f"`{what}` took more than {timeout_s:g} s; is the machine overloaded, or the Docker engine stuck?") from None
    if check and done.returncode != 0:
        raise SandboxError(f"`{what}` failed: {done.stderr.strip()}. Repair Docker, or install RabbitMQ.")
    return done.returncode == 0
