"""The files that OpenStack Swift is configured with: one proxy with the S3 API, one account, one container and one object server."""

from collections.abc import Mapping
from pathlib import Path

REGION = "us-east-1"

_SWIFT = """\
[swift-hash]
swift_hash_path_prefix = sandbox
swift_hash_path_suffix = sandbox
[swift-constraints]
max_file_size = 5368709122
"""

_STORAGE = """\
[DEFAULT]
swift_dir = {etc}
devices = {devices}
mount_check = false
disable_fallocate = true
log_level = WARNING
log_name = {kind}
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""

# Swift's own order; `cache` is ours, since Swift knows only memcached, which would be one more server to install.
_FILTERS = {
    "catch_errors": "",
    "gatekeeper": "",
    "healthcheck": "",
    "cache": "paste.filter_factory = azaion_daemon.sandbox.swift_cache:filter_factory",
    "listing_formats": "",
    "bulk": "",
    "s3api": f"s3_acl = false\ncheck_bucket_owner = false\nlocation = {REGION}",
    "tempauth": "",
    "copy": "",
    "slo": "allow_async_delete = false",
    "dlo": "",
    "versioned_writes": "allow_object_versioning = true",
    "symlink": "",
}


def write_configuration(etc: Path, devices: Path, users: Mapping[str, str]) -> dict[str, Path]:
    """Write every file into `etc` and return the configuration of each server by its name.

    `users` maps tempauth's `user_{account}_{name}` to the secret and the groups.
    """
    etc.mkdir(parents=True, exist_ok=True)
    (etc / "swift.conf").write_text(_SWIFT)
    files = {kind: etc / f"{kind}-server.conf" for kind in ("object", "container", "account", "proxy")}
    for kind, file in files.items():
        text = _proxy(etc, users) if kind == "proxy" else _STORAGE.format(etc=etc, devices=devices, kind=kind)
        file.touch(mode=0o600)
        file.write_text(text)
    return files


def _proxy(etc: Path, users: Mapping[str, str]) -> str:
    sections = {
        name: options if options.startswith("paste.") else f"use = egg:swift#{name}\n{options}" for name, options in _FILTERS.items()
    }
    sections["tempauth"] += "\n".join(f"{user} = {secret}" for user, secret in users.items())
    return "\n".join(
        [
            "[DEFAULT]",
            f"swift_dir = {etc}",
            "log_level = WARNING",
            "log_name = proxy",
            "[pipeline:main]",
            f"pipeline = {' '.join(_FILTERS)} proxy-server",
            "[app:proxy-server]",
            "use = egg:swift#proxy",
            "account_autocreate = true",
            *(f"[filter:{name}]\n{options}" for name, options in sections.items()),
            "",
        ]
    )
