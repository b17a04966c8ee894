#!/bin/bash
# Installs the daemon on a server with systemd. Run again, it completes what is missing and keeps what is there.
set -euo pipefail
SELF=install
SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=deploy/common.sh
. "$SOURCE/deploy/common.sh"

usage() {
    cat <<EOT
Usage: deploy/install.sh [--init] [--check] [--gpu | --cpu] [--python PROGRAM]

Installs azaion-daemon in $PREFIX, from the checkout or archive that this script lies in: user and group, a virtual
environment of its own with the locked packages, .env (made from .env.example when there is none, never changed), the systemd unit, a
first config.yaml. Nothing is started. Run it once, edit .env, run it again with --init.

  --init            also make the data root that .env names, or take over the one that is there (azaion-daemon init)
  --check           only look whether it could be installed
  --gpu, --cpu      which ONNX Runtime is installed; by default what the machine has
  --python PROGRAM  the Python that the virtual environment is made with; by default python3

pip takes its packages from where its own configuration says (/etc/pip.conf, PIP_INDEX_URL, ...).
A server that has another version is brought up to date by deploy/upgrade.sh.
EOT
}

parse() {
    PYTHON=python3 RUNTIME=auto INIT='' CHECK=''
    while [ $# -gt 0 ]; do
        case $1 in
            --init) INIT=1 ;;
            --check) CHECK=1 ;;
            --gpu | --cpu) RUNTIME=${1#--} ;;
            --python) [ $# -gt 1 ] || die "--python wants a program" && PYTHON=$2 && shift ;;
            -h | --help) usage && exit ;;
            *) usage >&2 && die "unknown argument: $1" ;;
        esac
        shift
    done
}

# Made, or given the right owner and mode, only when they are not there already.
ensure_directory() {
    local path=$1 owner=$2 mode=$3
    if [ ! -d "$path" ]; then install -d -m 755 "$path"; fi
    if [ "$(stat -c %U:%G:%a "$path")" != "$owner:$mode" ]; then
        chown "$owner" "$path"
        chmod "$mode" "$path"
    fi
}

make_accounts() {
    getent group "$DAEMON_GROUP" >/dev/null || groupadd --system "$DAEMON_GROUP"
    if ! getent passwd "$DAEMON_USER" >/dev/null; then
        useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$DAEMON_USER"
    fi
    case " $(id -nG "$DAEMON_USER") " in
        *" $DAEMON_GROUP "*) ;;
        *) usermod --append --groups "$DAEMON_GROUP" "$DAEMON_USER" ;;
    esac
}

refuse_another() {
    local present=$1
    [ ! -e "$PREFIX/current" ] || [ -L "$PREFIX/current" ] ||
        die "$PREFIX/current is a directory: an installation by hand. Stop the daemon and let a training end, or end its worker (this version
    resumes it); then: mv $PREFIX/current $PREFIX/by-hand, and run this again. Settings go from its $TEMPLATE to $PREFIX/$TEMPLATE."
    [ ! -e "$SWITCHING" ] || die "an upgrade was cut short. Run deploy/upgrade.sh again, or deploy/upgrade.sh --rollback."
    [ -z "$present" ] || [ "$present" = "$NAME" ] ||
        die "version $present is installed; this is $NAME. Bring it up to date with: $SOURCE/deploy/upgrade.sh"
}

make_env_file() {
    if [ -e "$ENV_FILE" ]; then
        case $(stat -c %a "$ENV_FILE") in *[1-7]) warn "$ENV_FILE can be used by everybody; it holds secrets: chmod 640 $ENV_FILE" ;; esac
        return
    fi
    install -o root -g "$DAEMON_GROUP" -m 640 "$VERSIONS/$NAME/.env.example" "$VERSIONS/.env"
    mv -T "$VERSIONS/.env" "$ENV_FILE"
    say "$ENV_FILE is made, with values for development"
}

# Settings that an installation before this one has left (see uninstall.sh).
take_template() {
    local kept=$PREFIX/$TEMPLATE
    if [ ! -e "$kept" ] && [ ! -L "$kept" ]; then return; fi
    # The daemon's user and group may put files here: nothing of theirs is read as root, nor made the settings.
    if [ ! -f "$kept" ] || [ -L "$kept" ] || [ "$(stat -c %u "$kept")" != 0 ]; then
        die "$kept is no file of root's, so its settings are not taken over. Look at it; then remove it, or: chown root:root \"$kept\""
    fi
    install -m 644 "$kept" "$VERSIONS/$NAME/$TEMPLATE.new"
    mv -T "$VERSIONS/$NAME/$TEMPLATE.new" "$VERSIONS/$NAME/$TEMPLATE"
    rm "$kept"
    say "the settings of $kept are taken over, into $PREFIX/current/$TEMPLATE"
}

# config.yaml is written only where it would differ: whoever watches it sees a change that is one.
render() {
    make_scratch
    render_to "$NAME" "$SCRATCH/config.yaml" || die "$ENV_FILE or $PREFIX/current/$TEMPLATE cannot be used; see above. Correct it, then run this again."
    if ! cmp -s "$SCRATCH/config.yaml" "$CONFIG" || [ "$(stat -c %U:%G:%a "$CONFIG")" != "$DAEMON_USER:$DAEMON_GROUP:640" ]; then
        if [ -e "$CONFIG" ]; then rm "$CONFIG"; fi # one that root has rendered could not be replaced by the daemon's user
        daemon_of "$NAME" config render --env-file "$ENV_FILE" --template "$PREFIX/current/$TEMPLATE" --output "$CONFIG" 2>/dev/null
    fi
    ROOT=$(ask "$NAME" root "$CONFIG") || die "the data root cannot be found out; see above"
    drop_scratch
}

make_root() {
    local at=$ROOT
    while [ "$at" != / ]; do # the disk may be that of a directory above
        if findmnt --noheadings --fstab --mountpoint "$at" >/dev/null 2>&1 && ! mountpoint -q "$at"; then
            die "$at is a disk of its own in /etc/fstab, and is not mounted. Mount it, then run this again: mount \"$at\""
        fi
        at=$(dirname "$at")
    done
    if [ ! -d "$ROOT" ]; then install -d -o "$DAEMON_USER" -g "$DAEMON_GROUP" -m 750 "$ROOT"; fi
    as_daemon test -w "$ROOT" -a -x "$ROOT" ||
        die "$ROOT cannot be written by $DAEMON_USER. Give it what is there: chown -R $DAEMON_USER:$DAEMON_GROUP \"$ROOT\""
    if as_daemon test -e "$ROOT/state/root.json"; then return; fi
    daemon_of "$NAME" init --config "$CONFIG" || die "the root could not be made; see above"
}

say_what_is_next() {
    local again="$SOURCE/deploy/install.sh --init"
    if cmp -s "$ENV_FILE" "$VERSIONS/$NAME/.env.example"; then
        say "next: put your values into $ENV_FILE, mount the disk for AZAION_ROOT_DIR, then run: $again"
    elif ! as_daemon test -e "$ROOT/state/root.json"; then
        say "next: $ROOT is no root of this daemon yet. When its disk is mounted, run: $again"
    else
        if grep -q '=changeme$' "$ENV_FILE"; then warn "$ENV_FILE still has passwords that are 'changeme'"; fi
        say "what doctor finds:"
        if daemon_of "$NAME" doctor --config "$CONFIG" >&2; then
            say "next: systemctl enable --now azaion-daemon"
        else
            say "next: mend what is broken, look again with the line below, and start it: systemctl enable --now azaion-daemon"
            say "  cd $PREFIX && runuser -u $DAEMON_USER -g $DAEMON_GROUP -- current/.venv/bin/azaion-daemon doctor"
        fi
    fi
}

main() {
    local present
    parse "$@"
    need_root
    need_commands systemctl useradd usermod groupadd getent setpriv flock sha256sum findmnt sync
    check_python
    find_runtime
    cd /
    name_source
    if [ -n "$CHECK" ]; then
        refuse_another "$(linked current)"
        PREFIX=$(existing_parent "$PREFIX") check_disk "$(linked current)"
        say "version $NAME can be installed"
        exit
    fi
    if [ ! -d "$PREFIX" ]; then install -d -m 755 "$PREFIX"; fi
    ensure_directory "$VERSIONS" root:root 755
    lock
    trap drop_scratch EXIT
    present=$(linked current)
    refuse_another "$present"
    make_accounts
    # The daemon makes config.yaml here; sticky, so that it can replace neither .env nor what is run.
    ensure_directory "$PREFIX" "root:$DAEMON_GROUP" 1775
    if ! is_whole "$NAME"; then check_disk ''; fi
    build_version "$NAME"
    make_env_file
    take_template
    if [ "$present" != "$NAME" ]; then point current "$NAME"; fi
    render
    install_unit "$present" "$NAME"
    write_dropin "$ROOT"
    reload_units
    if [ -n "$INIT" ]; then
        if cmp -s "$ENV_FILE" "$VERSIONS/$NAME/.env.example"; then die "$ENV_FILE has values for development. Put yours into it first."; fi
        make_root
    fi
    say "version $NAME is installed"
    say_what_is_next
}

existing_parent() {
    local path=$1
    while [ ! -e "$path" ]; do path=$(dirname "$path"); done
    printf '%s\n' "$path"
}

main "$@"
exit
