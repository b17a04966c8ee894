#!/bin/sh
# Sets up a checkout for development on Debian or Ubuntu: .venv with the locked dependencies, and from the distribution RabbitMQ and what
# tests look at things with: Chromium, shellcheck, systemd-analyze and promtool.
# Running it again costs nothing while the lock has not changed.
set -eu
cd "$(dirname "$0")/.."

VENV=.venv
LOCK=requirements/dev.txt
STAMP=$VENV/.installed
RABBITMQ=/usr/lib/rabbitmq/bin/rabbitmq-server
POLICY=/usr/sbin/policy-rc.d
PROMTOOL=$VENV/bin/promtool
NO_PROMTOOL=$VENV/.no-promtool

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }

check_python() {
    command -v python3 >/dev/null || fail "python3 is not installed. Install it with: apt-get install python3 python3-venv"
    version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "python3 is version $version, and 3.11 or newer is needed. Debian 12 and Ubuntu 24.04 have it."
    python3 -c 'import venv, ensurepip' 2>/dev/null ||
        fail "this python3 cannot make virtual environments. Install what is missing with: apt-get install python$version-venv"
}

# What is installed depends on these files alone.
fingerprint() {
    cat "$LOCK" pyproject.toml | sha256sum | cut -d ' ' -f 1
}

install_python_packages() {
    wanted=$(fingerprint)
    if [ "$(cat "$STAMP" 2>/dev/null)" = "$wanted" ] && [ -x "$VENV/bin/azaion-daemon" ]; then return; fi
    check_python
    if [ ! -x "$VENV/bin/python" ]; then
        say "making the virtual environment $VENV"
        rm -rf "$VENV"
        python3 -m venv "$VENV"
    fi
    rm -f "$STAMP"
    say "installing the packages of $LOCK (the first time that is several GB, torch above all; it takes some minutes)"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$LOCK"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --editable .
    printf '%s\n' "$wanted" >"$STAMP"
    say "python packages are installed"
}

# How to become root: nothing when we are, sudo when it asks for no password.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

may_be_root() { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }

docker_answers() { command -v docker >/dev/null && docker info >/dev/null 2>&1; }

remove_policy() { as_root rm -f "$POLICY"; }

# Packages of the distribution; what apt says is shown when it fails.
apt_install() {
    log=$VENV/apt.log
    if { as_root apt-get update && as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@"; } \
        >"$log" 2>&1 </dev/null; then return; fi
    cat "$log" >&2
    return 1
}

# The package would start a broker of its own. policy-rc.d forbids that now, and a disabled unit does so at the next boot.
install_rabbitmq() {
    if [ -x "$RABBITMQ" ]; then return; fi
    if ! may_be_root || ! command -v apt-get >/dev/null; then
        if docker_answers; then
            say "RabbitMQ is not installed; the sandbox will run it with Docker"
            return
        fi
        fail "RabbitMQ is not installed, and we may not install it. Do one of these, then try again:
    run 'make setup' as root, or with sudo that asks for no password
    run as root: apt-get install rabbitmq-server
    start a Docker engine that you may use"
    fi
    say "installing RabbitMQ from the distribution; no service of it will start"
    if [ ! -e "$POLICY" ]; then
        trap remove_policy EXIT
        trap 'exit 130' INT
        trap 'exit 143' TERM
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$POLICY" >/dev/null
        as_root chmod 755 "$POLICY"
    fi
    apt_install rabbitmq-server ||
        fail "apt-get could not install rabbitmq-server; see above. Repair apt, or install RabbitMQ yourself, and try again."
    if command -v systemctl >/dev/null; then
        for unit in rabbitmq-server.service epmd.service epmd.socket; do # one at a time: a missing one must not keep the others enabled
            as_root systemctl disable --quiet "$unit" 2>/dev/null || true
        done
    fi
    [ -x "$RABBITMQ" ] || fail "rabbitmq-server is installed, but $RABBITMQ is not there. Is this Debian or Ubuntu?"
    say "RabbitMQ is installed"
}

# install_for_tests TOOL PURPOSE PACKAGE...: what a test needs and nothing else, so that the rest goes on without.
install_for_tests() {
    tool=$1 purpose=$2 mark=$VENV/.no-$1
    shift 2
    if command -v "$tool" >/dev/null || [ -e "$mark" ]; then return; fi
    if ! may_be_root || ! command -v apt-get >/dev/null; then
        say "$tool is not installed, so no test will $purpose. To have it, run as root: apt-get install $*"
        return
    fi
    say "installing $tool from the distribution"
    if apt_install "$@"; then
        say "$tool is installed"
    else
        touch "$mark"
        say "apt-get could not install $tool; see above. No test will $purpose. Remove $mark to try again."
    fi
}

# Lists of packages may be missing or old on a fresh machine.
fetch_package() {
    (cd "$1" && apt-get download "$2") && return
    may_be_root && as_root apt-get update && (cd "$1" && apt-get download "$2")
}

# Tests look at metrics and alert rules with it. The file is taken out of the package, which is not installed: no service can start.
install_promtool() {
    if [ -x "$PROMTOOL" ] || command -v promtool >/dev/null || [ -e "$NO_PROMTOOL" ]; then return; fi
    if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
        say "promtool is not installed, so no test will look at the alert rules. It is part of Prometheus"
        return
    fi
    say "taking promtool out of the distribution's package prometheus"
    unpacked=$VENV/prometheus
    rm -rf "$unpacked"
    mkdir "$unpacked"
    log=$VENV/apt.log
    if fetch_package "$unpacked" prometheus >"$log" 2>&1 </dev/null &&
        dpkg-deb --fsys-tarfile "$unpacked"/prometheus_*.deb | tar -x -C "$unpacked" ./usr/bin/promtool &&
        mv "$unpacked/usr/bin/promtool" "$PROMTOOL"; then
        say "promtool is there"
    else
        cat "$log" >&2
        touch "$NO_PROMTOOL"
        say "promtool could not be had; see above. No test will look at the alert rules. Remove $NO_PROMTOOL to try again."
    fi
    rm -rf "$unpacked"
}

install_python_packages
install_rabbitmq
command -v google-chrome >/dev/null || install_for_tests chromium "look at reports" chromium fonts-dejavu-core
install_for_tests systemd-analyze "look at the unit" systemd
install_for_tests shellcheck "check shell scripts" shellcheck
install_promtool
say "ready"
