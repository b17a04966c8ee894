#!/bin/bash
# Removes the daemon from a server: the unit and the versions. The data root, .env and your settings stay.
set -euo pipefail
SELF=uninstall
SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=deploy/common.sh
. "$SOURCE/deploy/common.sh"
# A worker ends at once; one that hangs in its driver takes a while.
END_S=60

usage() {
    cat <<EOT
Usage: deploy/uninstall.sh [--stop-trainings] [--remove-user]

Stops azaion-daemon and removes its unit, its versions and config.yaml. What stays: the data root with all annotations, models, jobs and
keys; $ENV_FILE; settings that you have changed, as $PREFIX/$TEMPLATE. deploy/install.sh goes on with all of it.

  --stop-trainings  end a training that is under way; without it, nothing is done then. Its checkpoints stay, and an installation later on
                    resumes it
  --remove-user     also the user $DAEMON_USER; what it owns stays, under its number
EOT
}

parse() {
    STOP_TRAININGS='' REMOVE_USER=''
    while [ $# -gt 0 ]; do
        case $1 in
            --stop-trainings) STOP_TRAININGS=1 ;;
            --remove-user) REMOVE_USER=1 ;;
            -h | --help) usage && exit ;;
            *) usage >&2 && die "unknown argument: $1" ;;
        esac
        shift
    done
}

# The daemon is stopped by now: it would start them again.
stop_trainings() {
    local deadline=$((SECONDS + END_S)) pids
    while pids=$(workers) && [ -n "$pids" ]; do
        [ -n "$STOP_TRAININGS" ] || die "a training has begun meanwhile. The daemon is stopped, and nothing is removed. Start it again, or add --stop-trainings."
        [ "$SECONDS" -lt "$deadline" ] || die "these processes do not end: ${pids//$'\n'/ }. Look at dmesg, then run this again."
        # shellcheck disable=SC2086 # one argument each
        kill -TERM $pids 2>/dev/null || true
        sleep 0.5
    done
}

keep_template() {
    local dir=$VERSIONS/$1
    if [ -z "$1" ] || cmp -s "$dir/$TEMPLATE" "$dir/$DEFAULT_TEMPLATE"; then return; fi
    install -m 644 "$dir/$TEMPLATE" "$VERSIONS/.$TEMPLATE"
    mv -T "$VERSIONS/.$TEMPLATE" "$PREFIX/$TEMPLATE"
}

remove_unit() {
    if [ -e "$UNITS/$UNIT" ]; then
        systemctl disable --quiet "$UNIT" 9>&- || true
        rm "$UNITS/$UNIT"
    fi
    rm -f "$ROOT_DROPIN"
    if [ -d "$UNITS/$UNIT.d" ]; then rmdir --ignore-fail-on-non-empty "$UNITS/$UNIT.d"; fi
    systemctl daemon-reload 9>&-
}

remove_versions() {
    local dir name
    for dir in "$VERSIONS"/*/; do
        name=$(basename "$dir")
        if [ "$(cat "$dir/$MARK" 2>/dev/null)" = "$name" ]; then
            remove_version "$name"
        elif [ -d "$dir" ]; then
            warn "$dir was not made by these scripts; it stays"
        fi
    done
}

# By whoever looks: the daemon's user may be gone by now.
say_what_stays() {
    local root=$1
    say "the daemon is removed. What stays:"
    [ -z "$root" ] || say "  $root: all annotations, models and jobs, the ledger, the signing key"
    [ ! -e "$ENV_FILE" ] || say "  $ENV_FILE: secrets"
    [ ! -e "$PREFIX/$TEMPLATE" ] || say "  $PREFIX/$TEMPLATE: your settings; install.sh takes them over"
    [ ! -d "$UNITS/$UNIT.d" ] || say "  $UNITS/$UNIT.d: drop-ins of your own"
    ! getent passwd "$DAEMON_USER" >/dev/null || say "  the user $DAEMON_USER"
}

main() {
    local current pids root=''
    parse "$@"
    need_root
    need_commands systemctl flock
    if [ ! -d "$VERSIONS" ]; then
        say "nothing is installed in $PREFIX"
        exit
    fi
    cd /
    lock
    current=$(linked current)
    pids=$(workers)
    if [ -n "$pids" ] && [ -z "$STOP_TRAININGS" ]; then
        die "a training is under way (processes ${pids//$'\n'/ }). Nothing was changed. Wait for its end, or cancel it (azaion-daemon train cancel),
    or have it ended with --stop-trainings: its checkpoints stay, and an installation later on resumes it."
    fi
    if [ -n "$current" ] && [ -f "$CONFIG" ]; then root=$(ask "$current" root "$CONFIG" 2>/dev/null) || root=''; fi
    if [ -e "$UNITS/$UNIT" ]; then systemctl stop "$UNIT" 9>&- || die "the daemon could not be stopped: systemctl status $UNIT"; fi
    stop_trainings
    keep_template "$current"
    remove_unit
    rm -f "$PREFIX/current" "$PREFIX/previous" "$CONFIG" "$SWITCHING" "$SWITCHING.new" "$VERSIONS/.current" "$VERSIONS/.previous"
    drop_scratch
    remove_versions
    rm -f "$VERSIONS/.lock"
    rmdir --ignore-fail-on-non-empty "$VERSIONS"
    if [ -n "$REMOVE_USER" ] && getent passwd "$DAEMON_USER" >/dev/null; then userdel "$DAEMON_USER"; fi
    say_what_stays "$root"
}

main "$@"
exit
