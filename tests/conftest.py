"""The outside world for tests: one broker and one object store for a whole run, a fresh stream and a fresh platform for each test."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster, blockbuster_ctx

from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.sandbox.object_store import ObjectStore
from azaion_daemon.sandbox.platform_api import PlatformApi
from azaion_daemon.sandbox.platform_state import User


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Shared: a test that kills or freezes it starts or thaws it again."""
    with Broker(tmp_path_factory.mktemp("rabbitmq")) as running:
        yield running


@pytest.fixture
def stream(broker: Broker) -> Iterator[str]:
    """The name of an empty stream that only this test uses."""
    name = f"azaion-annotations-{uuid.uuid4().hex[:12]}"
    broker.create_stream(name)
    yield name
    broker.delete_stream(name)


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """Shared: tests use keys of their own."""
    with ObjectStore(tmp_path_factory.mktemp("swift")) as running:
        yield running


@pytest.fixture
def platform_user() -> User:
    """The user that `platform_api` knows."""
    return User("daemon@example.org", 'p#ss: "w')


@pytest.fixture
def platform_api(tmp_path: Path, platform_user: User) -> Iterator[PlatformApi]:
    """The platform, of the old generation until a test says otherwise."""
    with PlatformApi(tmp_path / "platform", platform_user) as running:
        yield running


@pytest.fixture
def no_blocking_calls() -> Iterator[BlockBuster]:
    """A call of ours that would block the event loop raises BlockingError. The sandbox's own calls may block: it is not the product."""
    with blockbuster_ctx("azaion_daemon", excluded_modules=["azaion_daemon.sandbox"]) as watching:
        yield watching
