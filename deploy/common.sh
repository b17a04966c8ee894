# shellcheck shell=bash disable=SC2034  # what is not used here is by those who source it
# What install.sh, upgrade.sh and uninstall.sh share. It is sourced, after SOURCE is set to the directory that holds deploy/.
#
#   /opt/azaion-training/              root:deploy 1775: the daemon may make config.yaml here, and replace nothing else
#     .env                             root:deploy 640, the operator's
#     config.yaml                      rendered, azaion:deploy 640
#     current -> versions/NAME         what the unit starts; replaced atomically
#     previous -> versions/NAME        what `upgrade.sh --rollback` goes back to
#     versions/                        root:root 755; all that the scripts make or remove is below it
#       NAME/                          number and digest of everything that it was made from
#         .azaion-version              the script's mark: nothing without it is ever removed
#         .complete                    it is whole
#         .venv/  config.template.yaml  config.template.default.yaml  deploy/  systemd/ ...
#       .lock                          held (flock) by the script at work
#       .switching                     a switch that is not confirmed yet: from, to, previous, whether the daemon was running

PREFIX=/opt/azaion-training
VERSIONS=$PREFIX/versions
ENV_FILE=$PREFIX/.env
CONFIG=$PREFIX/config.yaml
TEMPLATE=config.template.yaml
DEFAULT_TEMPLATE=config.template.default.yaml
UNIT=azaion-daemon.service
UNITS=/etc/systemd/system
ROOT_DROPIN=$UNITS/$UNIT.d/root.conf
DAEMON_USER=azaion
DAEMON_GROUP=deploy
MARK=.azaion-version
COMPLETE=.complete
SWITCHING=$VERSIONS/.switching
# What the daemon is made from, and what an operator reads.
INGREDIENTS=(azaion_daemon pyproject.toml README.md CHANGELOG.md LICENSE .env.example config.template.yaml
    requirements/server.txt requirements/gpu.txt systemd deploy)
GIB=$((1 << 30))
# Driver of the GPU that CUDA 13 asks for.
DRIVER=580

# Operators come by `su`, too, which leaves the directories of useradd out.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
umask 022

# A terminal that has gone must not end a switch half way.
say() { printf '%s: %s\n' "$SELF" "$*" >&2 || true; }
warn() { say "warning: $*"; }
die() {
    say "error: $*"
    exit 1
}

need_root() { [ "$(id -u)" = 0 ] || die "it must be run as root: sudo $0"; }

need_commands() {
    local missing=() command
    for command in "$@"; do command -v "$command" >/dev/null || missing+=("$command"); done
    [ ${#missing[@]} = 0 ] || die "not installed: ${missing[*]}. A server with systemd, Debian 12 or Ubuntu 24.04, has them;
    in a container nothing is installed by this script: see deploy/Dockerfile."
}

# One script at a time. What was started by a script that was killed may hold the lock a while longer, and rightly.
lock() {
    exec 9>>"$VERSIONS/.lock"
    flock --nonblock 9 || die "another of these scripts is at work, or what a killed one has started (pip) still is.
    See: ps -ef | grep $VERSIONS"
}

# As the daemon's user, with no environment of ours: it would go before .env.
as_daemon() {
    setpriv --reuid "$DAEMON_USER" --regid "$DAEMON_GROUP" --init-groups -- \
        env -i PATH=/usr/bin:/bin LANG=C.UTF-8 HOME=/nonexistent "$@" 9>&-
}

# The commands of a version. Only absolute paths: what is in the present directory is not its.
daemon_of() {
    local name=$1
    shift
    as_daemon "$VERSIONS/$name/.venv/bin/azaion-daemon" "$@"
}

ask() {
    local name=$1
    shift
    as_daemon "$VERSIONS/$name/.venv/bin/python" -P -m azaion_daemon.ops.installed "$@"
}

check_python() {
    command -v "$PYTHON" >/dev/null || die "$PYTHON is not installed. Install it with: apt-get install python3 python3-venv"
    PYTHON_VERSION=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || die "$PYTHON does not run"
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "$PYTHON is version $PYTHON_VERSION, and 3.11 or newer is needed. Debian 12 and Ubuntu 24.04 have it; name another with --python."
    "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null ||
        die "$PYTHON cannot make virtual environments. Install what is missing with: apt-get install python$PYTHON_VERSION-venv"
}

# `gpu` or `cpu`: which ONNX Runtime is installed. What trains finds out by itself.
find_runtime() {
    local found
    if [ "$RUNTIME" != auto ]; then return; fi
    RUNTIME=cpu
    if command -v nvidia-smi >/dev/null && found=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null); then
        RUNTIME=gpu
        say "GPU: ${found//$'\n'/; }"
        found=${found%%$'\n'*}
        found=${found##*, }
        [ "${found%%.*}" -ge "$DRIVER" ] 2>/dev/null ||
            warn "the driver is $found, and CUDA 13 needs $DRIVER or newer: trainings would fail. Install a newer driver."
    elif [ -e /proc/driver/nvidia/version ]; then
        die "NVIDIA's driver is loaded, but nvidia-smi does not answer. Repair the driver, or say which it is to be with --gpu or --cpu."
    else
        say "no GPU is found: trainings would run on the CPU. Install NVIDIA's driver first, if there is one."
    fi
}

free_bytes() { df --output=avail --block-size=1 "$1" | tail -n 1; }

# Enough for one more version: as much as the present one takes, else what PyTorch with CUDA is known to take, and what pip needs beside it.
check_disk() {
    local present=$1 needed=$GIB free
    if [ -n "$present" ]; then
        needed=$((needed + $(du --summarize --block-size=1 "$VERSIONS/$present" | cut -f 1) * 3 / 2))
    elif grep -q '^torch==' "$SOURCE/requirements/server.txt"; then
        needed=$((12 * GIB))
    fi
    free=$(free_bytes "$PREFIX")
    [ "$free" -ge "$needed" ] ||
        die "$PREFIX has $((free * 10 / GIB / 10)) GiB free, and $(((needed + GIB - 1) / GIB)) GiB are needed for a version beside what is there."
}

# Versions

valid_name() { case $1 in '' | .* | *[!A-Za-z0-9.+-]*) return 1 ;; esac }

# The name of a version says what it is made from, so the same sources are the same version, from a checkout or an archive.
name_source() {
    local number digest
    if [ -f "$SOURCE/$MARK" ]; then # the script of an installed version
        NAME=$(cat "$SOURCE/$MARK")
    else
        number=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$SOURCE/azaion_daemon/__init__.py")
        digest=$({
            printf '%s %s\n' "$PYTHON_VERSION" "$RUNTIME"
            cd "$SOURCE" && find "${INGREDIENTS[@]}" -type f ! -name '*.py[co]' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum --
        } | sha256sum) || die "$SOURCE is not whole; see above"
        NAME=$number-${digest:0:12}
    fi
    valid_name "$NAME" || die "$SOURCE has the version $NAME, which can be no name of a directory"
}

# What a link leads to; empty where there is none.
linked() {
    local target
    target=$(readlink "$PREFIX/$1") || return 0
    target=${target#versions/}
    if valid_name "$target" && [ -f "$VERSIONS/$target/$MARK" ]; then printf '%s\n' "$target"; fi
}

is_whole() { [ -n "$1" ] && [ -f "$VERSIONS/$1/$MARK" ] && [ -f "$VERSIONS/$1/$COMPLETE" ]; }

# Replaced by one rename. The new link is made where only root can.
point() {
    rm -f "$VERSIONS/.$1"
    ln -s "versions/$2" "$VERSIONS/.$1"
    mv -T "$VERSIONS/.$1" "$PREFIX/$1"
}

# Only what bears our mark, and the mark goes last: cut short, it can be done again. Mounts and what links lead to are left alone.
remove_version() {
    local dir=$VERSIONS/$1
    if [ -L "$dir" ] || [ "$(cat "$dir/$MARK" 2>/dev/null)" != "$1" ]; then die "$dir was not made by these scripts; it stays"; fi
    rm -f "$dir/$COMPLETE"
    find "$dir" -xdev -mindepth 1 -not -path "$dir/$MARK" -delete
    rm "$dir/$MARK"
    rmdir "$dir"
}

make_version_directory() {
    local dir=$VERSIONS/$1 new=$VERSIONS/.new
    if [ -d "$new" ]; then rm -f "$new/$MARK" && rmdir "$new"; fi
    if [ -e "$dir" ]; then remove_version "$1"; fi
    mkdir "$new"
    printf '%s\n' "$1" >"$new/$MARK"
    mv -T "$new" "$dir"
}

pip_of() {
    local dir=$1
    shift
    # Its own temporary directory: /tmp is small on some servers, and PyTorch is large.
    TMPDIR=$dir/.build/tmp "$dir/.venv/bin/python" -m pip --disable-pip-version-check --no-input "$@" </dev/null
}

# Made from the sources beside this script, in its final place, since a virtual environment cannot be moved.
build_version() {
    local name=$1 dir=$VERSIONS/$1 part
    if is_whole "$name"; then
        say "version $name is built already"
        return
    fi
    [ ! -f "$SOURCE/$MARK" ] || die "the version $name is not whole. Run this from the sources that it was made from."
    say "building version $name in $dir"
    make_version_directory "$name"
    mkdir -p "$dir/.build/tmp" "$dir/.build/source"
    for part in "${INGREDIENTS[@]}"; do
        case $part in
            azaion_daemon | pyproject.toml) ;;
            */*) (cd "$SOURCE" && cp --parents "$part" "$dir/") ;;
            *) cp -R "$SOURCE/$part" "$dir/" ;;
        esac
    done
    cp -R "$SOURCE/azaion_daemon" "$SOURCE/pyproject.toml" "$SOURCE/README.md" "$SOURCE/LICENSE" "$dir/.build/source/"
    cp "$dir/$TEMPLATE" "$dir/$DEFAULT_TEMPLATE"
    "$PYTHON" -m venv "$dir/.venv"
    if [ "$RUNTIME" = gpu ]; then
        { grep -v '^onnxruntime==' "$dir/requirements/server.txt" && cat "$dir/requirements/gpu.txt"; } >"$dir/requirements.txt"
    else
        cp "$dir/requirements/server.txt" "$dir/requirements.txt"
    fi
    say "installing the locked packages; PyTorch with CUDA is several GB, so the first time this takes some minutes"
    pip_of "$dir" install --quiet --requirement "$dir/requirements.txt" ||
        die "pip could not install the packages; see above. Which index it uses, its own configuration says: pip config list. Then try again."
    pip_of "$dir" install --quiet --no-deps --no-build-isolation "$dir/.build/source" ||
        die "pip could not install the daemon; see above"
    find "$dir/.build" -xdev -delete
    chmod -R u=rwX,go=rX "$dir"
    daemon_of "$name" --version >/dev/null || die "the daemon of version $name does not run; see above"
    as_daemon "$dir/.venv/bin/python" -P -c 'import azaion_daemon.training.worker' || die "the worker of version $name does not run; see above"
    sync -f "$dir"
    : >"$dir/$COMPLETE"
    say "version $name is built"
}

# Processes that run from a version, or have its libraries mapped.
is_in_use() { grep -qsF "$VERSIONS/$1/" /proc/[0-9]*/cmdline /proc/[0-9]*/maps; }

# The processes of workers, their loaders and ranks.
workers() {
    local cmdline
    for cmdline in /proc/[0-9]*/cmdline; do
        case $({ tr '\0' ' ' <"$cmdline"; } 2>/dev/null || true) in
            "$VERSIONS"/*azaion_daemon.training.worker*)
                cmdline=${cmdline#/proc/}
                printf '%s\n' "${cmdline%/cmdline}"
                ;;
        esac
    done
}

# Configuration

# A directory of the daemon's for what is rendered to be looked at. It holds secrets, so it goes whatever happens.
make_scratch() {
    drop_scratch
    SCRATCH=$(mktemp -d "$VERSIONS/.check.XXXXXX")
    chmod 700 "$SCRATCH"
    chown "$DAEMON_USER:$DAEMON_GROUP" "$SCRATCH"
}

drop_scratch() {
    local dir
    for dir in "$VERSIONS"/.check.*; do
        if [ -d "$dir" ]; then find "$dir" -xdev -delete; fi
    done
}

# What the unit would render, as its user, and checked, both by the version that is to read it.
render_to() {
    local name=$1 output=$2 said
    if said=$(daemon_of "$name" config render --env-file "$ENV_FILE" --template "$VERSIONS/$name/$TEMPLATE" --output "$output" 2>&1) &&
        said=$(daemon_of "$name" config check --config "$output" 2>&1); then return; fi
    printf '%s\n' "$said" >&2
    return 1
}

# The unit

# What is there and was not made by the version that was current is kept beside it, where systemd does not look.
install_unit() {
    local from=$1 to=$VERSIONS/$2/systemd/$UNIT there=$UNITS/$UNIT
    if cmp -s "$to" "$there"; then return; fi
    if [ -e "$there" ] && { [ -z "$from" ] || ! cmp -s "$VERSIONS/$from/systemd/$UNIT" "$there"; }; then
        cp "$there" "$there.edited"
        warn "$there was changed here. It is replaced, and kept as $there.edited: put changes of your own into a drop-in (systemctl edit $UNIT)."
    fi
    install -m 644 "$to" "$there.new"
    mv -T "$there.new" "$there"
    UNIT_CHANGED=1
}

# For another root than the unit's own.
write_dropin() {
    local root=$1 quoted text
    case " $(sed -n 's/^RequiresMountsFor=//p' "$UNITS/$UNIT" | tr '\n' ' ') " in *" $root "*)
        if [ -e "$ROOT_DROPIN" ]; then rm "$ROOT_DROPIN" && UNIT_CHANGED=1; fi
        return
        ;;
    esac
    quoted=${root//\\/\\\\}
    quoted=${quoted//\"/\\\"}
    quoted=\"${quoted//%/%%}\"
    text="# Written by install.sh, from AZAION_ROOT_DIR in $ENV_FILE.
[Unit]
RequiresMountsFor=$quoted

[Service]
ReadWritePaths=$quoted"
    if [ "$(cat "$ROOT_DROPIN" 2>/dev/null)" = "$text" ]; then return; fi
    mkdir -p "${ROOT_DROPIN%/*}"
    printf '%s\n' "$text" >"$ROOT_DROPIN.new"
    mv -T "$ROOT_DROPIN.new" "$ROOT_DROPIN"
    UNIT_CHANGED=1
}

reload_units() {
    if [ -n "${UNIT_CHANGED:-}" ]; then systemctl daemon-reload 9>&-; fi
    UNIT_CHANGED=
}
