"""What a daemon's metrics say, read as Prometheus reads them."""

import http.client
import socket
import time
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

from tests.harness import Site

Samples = dict[tuple[str, tuple[str, ...]], float]


def serve_metrics(site: Site) -> None:
    """Have the site's daemon serve them at a port that is free."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        site.overrides["metrics"] = {"listen": f"127.0.0.1:{found.getsockname()[1]}"}


def address(site: Site) -> tuple[str, int]:
    host, _, port = site.overrides["metrics"]["listen"].rpartition(":")
    return host, int(port)


def scraped(site: Site) -> Samples:
    """By name and the values of labels; nothing while there is no answer."""
    connection = http.client.HTTPConnection(*address(site), timeout=10)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        if answer.status != 200:
            return {}
        text = answer.read().decode()
    except OSError:
        return {}
    finally:
        connection.close()
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scraped_until(site: Site, reached: Callable[[Samples], bool]) -> Samples:
    deadline = time.monotonic() + 60
    while not ((found := scraped(site)) and reached(found)):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found
