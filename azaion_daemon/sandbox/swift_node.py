"""The process of the object store: `python -m azaion_daemon.sandbox.swift_node DIRECTORY PORT`.

All four servers of Swift run in it on green threads. The three behind the proxy listen on ports that the kernel gives them, and the rings
are made for these at every start; what is stored does not depend on them. The users are read from `users.json` in the directory.
"""

import json
import sys
from pathlib import Path

import eventlet  # type: ignore[import-untyped]
import eventlet.greenpool  # type: ignore[import-untyped]
import eventlet.hubs  # type: ignore[import-untyped]
import eventlet.wsgi  # type: ignore[import-untyped]
from swift.common import utils

from azaion_daemon.sandbox.processes import LOOPBACK
from azaion_daemon.sandbox.swift_config import write_configuration

_BACKENDS = ("object", "container", "account")
_PART_POWER = 4  # 16 partitions on one device


def serve(directory: Path, port: int) -> None:
    """Run until the process is ended."""
    eventlet.hubs.use_hub(utils.get_hub())
    utils.monkey_patch()
    etc, devices = directory / "etc", directory / "devices"
    (devices / "d1").mkdir(parents=True, exist_ok=True)
    files = write_configuration(etc, devices, json.loads((directory / "users.json").read_text()))
    utils.set_swift_dir(str(etc))

    # These read swift.conf when they are imported.
    from swift.common import constraints, wsgi  # noqa: PLC0415
    from swift.common.http_protocol import SwiftHttpProtocol  # noqa: PLC0415
    from swift.common.ring import RingBuilder  # noqa: PLC0415

    servers = eventlet.greenpool.GreenPool()
    sockets = {kind: eventlet.listen((LOOPBACK, 0 if kind in _BACKENDS else port), backlog=512) for kind in files}
    for kind in _BACKENDS:
        ring = RingBuilder(_PART_POWER, 1, 0)
        device = {"region": 1, "zone": 1, "device": "d1", "weight": 1.0, "meta": "", "ip": LOOPBACK, "port": sockets[kind].getsockname()[1]}
        ring.add_dev({**device, "replication_ip": device["ip"], "replication_port": device["port"]})
        ring.rebalance(seed=1)
        ring.get_ring().save(str(etc / f"{kind}.ring.gz"))
    for kind, file in files.items():
        servers.spawn(
            eventlet.wsgi.server,  # Swift's own `run_server` would begin a new hub for each, and forget the one before
            sockets[kind],
            wsgi.loadapp(str(file), global_conf={"log_name": kind}),
            utils.NullLogger(),
            protocol=SwiftHttpProtocol,
            capitalize_response_headers=False,  # the S3 API says ETag, not Etag
            url_length_limit=constraints.MAX_REQUEST_LINE,
            socket_timeout=60,
        )
    servers.waitall()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
