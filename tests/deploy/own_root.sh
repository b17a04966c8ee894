#!/bin/bash
# A root of its own, in mount and process namespaces that end with whoever made them: this system's programs, read only; empty /opt, /tmp
# and /var; a copy of /etc. Called as: unshare --mount --pid --fork --kill-child own_root.sh ROOT DIRECTORY_TO_SEE...
set -euo pipefail
root=$1
shift
mount --make-rprivate /
mount -t tmpfs -o mode=755,size=3g tmpfs "$root"
mkdir -p "$root"/{dev,proc,opt,run,srv,stand-in,var/log,var/mail}
mkdir -m 1777 "$root/tmp"
see() {
    mkdir -p "$root$1"
    mount --bind "$1" "$root$1"
    mount -o remount,bind,ro "$root$1"
}
for directory in /usr /bin /sbin /lib /lib32 /lib64 /libx32; do
    if [ -L "$directory" ]; then cp -P "$directory" "$root$directory"; elif [ -d "$directory" ]; then see "$directory"; fi
done
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
cp -a /etc "$root/etc"
for directory; do see "$directory"; done
echo ready
# Whatever loses its parent in here becomes a child of this process: ignored, it leaves no zombie.
trap '' CHLD
exec sleep infinity
