#!/bin/bash
# Brings an installed daemon to the version that this script lies in, or back to the one before. Cut short at any moment, it can be run
# again. No training is touched: it goes on with the version that it began with.
set -euo pipefail
SELF=upgrade
SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=deploy/common.sh
. "$SOURCE/deploy/common.sh"
# How long a daemon that says it is ready must stay so.
SETTLE=2

usage() {
    cat <<EOT
Usage: deploy/upgrade.sh [--rollback | --prune] [--ready-timeout SECONDS] [--gpu | --cpu] [--python PROGRAM]

Builds the version that this script lies in beside the one that runs, checks your .env and settings with it, switches, restarts the
daemon, and waits until it is ready. If it does not become ready, the version before is put back and started. Trainings go on.
Versions that neither a job nor a process needs are removed; the one before the present one stays.

  --rollback        go back to the version before
  --prune           only remove versions that nothing needs any more
  --ready-timeout   how long the new version may take to be ready; by default 90 seconds
  --gpu, --cpu      which ONNX Runtime is installed; by default what the machine has
  --python PROGRAM  the Python that the virtual environment is made with; by default python3

Exit status: 0 done, 1 nothing was changed, 3 the version before is in place again, 4 so it is, but it does not run either.
EOT
}

parse() {
    PYTHON=python3 RUNTIME=auto ACTION=upgrade READY_TIMEOUT=90
    while [ $# -gt 0 ]; do
        case $1 in
            --rollback | --prune) ACTION=${1#--} ;;
            --gpu | --cpu) RUNTIME=${1#--} ;;
            --python) [ $# -gt 1 ] || die "--python wants a program" && PYTHON=$2 && shift ;;
            --ready-timeout)
                case ${2:-} in '' | *[!0-9]*) die "--ready-timeout wants a number of seconds" ;; esac
                READY_TIMEOUT=$2 && shift
                ;;
            -h | --help) usage && exit ;;
            *) usage >&2 && die "unknown argument: $1" ;;
        esac
        shift
    done
}

# On a clock that is not set.
uptime() {
    local seconds
    read -r seconds _ </proc/uptime
    printf '%s\n' "${seconds%.*}"
}

was_started() {
    case $(systemctl is-active "$UNIT" 9>&- || true) in active | activating | reloading) return 0 ;; *) return 1 ;; esac
}

# The unit's process is of that version, and says that it works.
is_ready() {
    local name=$1 pid program
    systemctl is-active --quiet "$UNIT" 9>&- || return 1
    pid=$(systemctl show --property MainPID --value "$UNIT" 9>&-)
    [ "${pid:-0}" -gt 0 ] || return 1
    IFS= read -r -d '' program 2>/dev/null <"/proc/$pid/cmdline" || return 1
    case $program in "$VERSIONS/$name"/*) ;; *) return 1 ;; esac
    ask "$name" running "$CONFIG" "$pid" 2>/dev/null
}

# A unit that starts again and again is never ready for long.
start_and_wait() {
    local name=$1 deadline
    systemctl reset-failed "$UNIT" 9>&- 2>/dev/null || true
    deadline=$(($(uptime) + READY_TIMEOUT))
    # It returns when the daemon is ready, and that may ask systemd for ever more time, as on a full disk.
    timeout "$READY_TIMEOUT" systemctl restart "$UNIT" 9>&- || return 1
    until is_ready "$name"; do
        [ "$(uptime)" -lt "$deadline" ] || return 1
        case $(systemctl is-active "$UNIT" 9>&- || true) in active | activating | reloading) ;; *) return 1 ;; esac
        sleep 0.5
    done
    sleep "$SETTLE"
    is_ready "$name"
}

show_journal() {
    if command -v journalctl >/dev/null; then
        say "its last words:"
        journalctl --unit "$UNIT" --lines 20 --output cat --no-pager >&2 || true
    fi
}

# Settings that were changed here go along; others are those of the version. Decided anew at each switch, for what is changed meanwhile.
carry_template() {
    local from=$VERSIONS/$1 to=$VERSIONS/$2 with
    with=$to/$DEFAULT_TEMPLATE
    if ! cmp -s "$from/$TEMPLATE" "$from/$DEFAULT_TEMPLATE"; then
        with=$from/$TEMPLATE
        if ! cmp -s "$from/$DEFAULT_TEMPLATE" "$to/$DEFAULT_TEMPLATE"; then
            say "your settings are kept. What the template has beside them now: diff $from/$DEFAULT_TEMPLATE $to/$DEFAULT_TEMPLATE"
        fi
    fi
    if cmp -s "$with" "$to/$TEMPLATE"; then return; fi
    install -m 644 "$with" "$to/$TEMPLATE.new"
    mv -T "$to/$TEMPLATE.new" "$to/$TEMPLATE"
}

# A newer version may add to the ledger's schema, which an older one does not mind: versions only ever add. So going back needs no copy, and
# putting one back would lose what came since. It is for the case that nobody has thought of.
copy_ledger() {
    local name=$1 copy=$VERSIONS/$1/ledger-before.db root
    if [ "$name" = "$(linked current)" ] && [ -e "$copy" ]; then return; fi # cut short: it may have begun to work since
    root=$(ask "$name" root "$SCRATCH/config.yaml") || return 1
    if ! as_daemon test -e "$root/state/ledger.db"; then
        say "$root has no ledger, so there is nothing to copy"
        return
    fi
    ask "$name" copy-ledger "$SCRATCH/config.yaml" "$SCRATCH/ledger.db" || return 1
    install -o root -g root -m 600 "$SCRATCH/ledger.db" "$copy.new" && mv -T "$copy.new" "$copy" || return 1
    say "a copy of the ledger from before is $copy"
}

check_configuration() {
    local name=$1
    make_scratch
    render_to "$name" "$SCRATCH/config.yaml" ||
        die "version $name cannot work with $ENV_FILE and your settings; see above. Nothing was changed: correct them, and run this again."
}

switch() {
    local from=$1 to=$2
    point previous "$from"
    point current "$to"
    install_unit "$from" "$to"
    reload_units
}

go_to() {
    local from=$1 to=$2 running=$3 before
    before=$(linked previous)
    before=${before:--}
    if [ -e "$SWITCHING" ]; then read -r _ _ before _ <"$SWITCHING"; fi
    printf '%s %s %s %s\n' "$from" "$to" "$before" "$running" >"$SWITCHING.new"
    mv -T "$SWITCHING.new" "$SWITCHING"
    sync -f "$VERSIONS"
    trap '' HUP PIPE # a terminal that goes away does not leave it half way
    switch "$from" "$to"
    if [ "$running" = 0 ]; then
        say "the daemon was not running, and is not started. Start it with: systemctl start azaion-daemon"
    elif ! start_and_wait "$to"; then
        say "version $to does not become ready"
        show_journal
        go_back "$from" "$to" "$before"
    fi
    rm "$SWITCHING"
    say "version $to is the current one"
}

# What the daemon has taken in meanwhile stays: the version before works on with the ledger as it is.
go_back() {
    local from=$1 to=$2 before=$3 status=3
    say "going back to version $from"
    switch "$to" "$from"
    if is_whole "$before"; then point previous "$before"; elif [ "$before" = - ]; then rm -f "$PREFIX/previous"; fi
    if start_and_wait "$from"; then
        say "version $from runs again; nothing is lost. Version $to stays in $VERSIONS/$to to be looked at."
    else
        status=4
        show_journal
        say "version $from does not become ready either: look at the journal, and at: azaion-daemon doctor"
    fi
    rm "$SWITCHING"
    exit "$status"
}

prune() {
    local keep dir name needed
    keep=" $(linked current) $(linked previous) $* "
    needed=$(ask "$(linked current)" interpreters "$CONFIG") || {
        warn "which versions jobs need cannot be found out (see above), so none is removed"
        return 0
    }
    for dir in "$VERSIONS"/*/; do
        name=$(basename "$dir")
        case $keep in *" $name "*) continue ;; esac
        case $needed in *"$VERSIONS/$name/"*)
            say "version $name stays: a job that has not ended began with it"
            continue
            ;;
        esac
        if [ "$(cat "$dir/$MARK" 2>/dev/null)" != "$name" ]; then
            warn "$dir was not made by these scripts; it stays"
        elif is_in_use "$name"; then
            say "version $name stays: a process runs from it"
        else
            remove_version "$name"
            say "version $name is removed: nothing needs it any more"
        fi
    done
}

# shellcheck disable=SC2317  # by the trap
finish() {
    drop_scratch
    if [ -e "$SWITCHING" ]; then say "the switch is not confirmed. Run this again, or go back with --rollback."; fi
}

main() {
    local current confirmed running=0 recorded=''
    parse "$@"
    need_root
    need_commands systemctl setpriv flock sha256sum sync
    current=$(linked current)
    [ -n "$current" ] || die "nothing is installed in $PREFIX. Install it with: $SOURCE/deploy/install.sh"
    cd /
    lock
    trap finish EXIT
    confirmed=$current
    if [ -e "$SWITCHING" ]; then
        read -r confirmed _ _ recorded <"$SWITCHING"
        say "a switch from version $confirmed to $(cut -d ' ' -f 2 "$SWITCHING") was cut short"
        is_whole "$confirmed" || die "version $confirmed is gone. Remove $SWITCHING, and run this again."
    fi
    if was_started || [ "$recorded" = 1 ]; then running=1; fi
    case $ACTION in
        prune) prune && exit ;;
        rollback)
            NAME=$(linked previous)
            if [ "$confirmed" != "$current" ]; then NAME=$confirmed && confirmed=$current; fi
            is_whole "$NAME" || die "there is no version to go back to"
            say "going back from version $current to $NAME"
            ;;
        *)
            check_python
            find_runtime
            name_source
            if [ "$NAME" = "$current" ] && [ ! -e "$SWITCHING" ]; then
                say "version $NAME is the current one already"
                prune && exit
            fi
            if ! is_whole "$NAME"; then check_disk "$current"; fi
            build_version "$NAME"
            if [ "$NAME" != "$current" ]; then carry_template "$current" "$NAME"; fi
            ;;
    esac
    check_configuration "$NAME"
    copy_ledger "$NAME" || die "the ledger could not be copied; see above. Nothing was changed."
    if [ "$ACTION" = rollback ]; then
        ask "$NAME" interpreters "$SCRATCH/config.yaml" >/dev/null ||
            die "version $NAME cannot read the ledger as it is now; see above. Nothing was changed."
    fi
    drop_scratch
    go_to "$confirmed" "$NAME" "$running"
    prune "$confirmed"
}

main "$@"
exit
