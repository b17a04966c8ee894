"""Publishes annotation messages as the platform's producer does: gzip sub-entries, at least once."""

import asyncio
import random
from collections.abc import Iterable, Iterator

import rstream

from azaion_daemon.sandbox.annotations import Message
from azaion_daemon.sandbox.broker import Broker
from azaion_daemon.sandbox.connecting import connecting
from azaion_daemon.sandbox.processes import SandboxError

_ENTRY_BYTES = 4 << 20  # of one gzip sub-entry, before compression; a larger message makes an entry alone
_IN_FLIGHT = 8  # sub-entries sent and not confirmed yet


class Annotator:
    """The producer of one stream.

    `entry_messages` is how many messages one gzip sub-entry holds at most; `confirm_timeout_s` is how long the broker may take to confirm.
    """

    def __init__(self, broker: Broker, stream: str, *, entry_messages: int = 16, confirm_timeout_s: float = 60.0) -> None:
        self._broker = broker
        self._stream = stream
        self._entry_messages = entry_messages
        self._confirm_timeout_s = confirm_timeout_s

    async def publish(self, messages: Iterable[Message], duplicates: float = 0.0, seed: int = 0) -> int:
        """Publish in order and wait until the broker has confirmed everything; how many messages went out.

        A share `duplicates` (0..1, chosen by `seed`) is sent twice in a row, as a producer does whose confirmation got lost.

        Raises:
            SandboxError: The broker refused a message, or did not confirm in time.
        """
        login = self._broker.producer
        published = 0
        refused: list[int] = []
        room = asyncio.Semaphore(_IN_FLIGHT)

        def confirmed(status: rstream.ConfirmationStatus) -> None:
            if not status.is_confirmed:
                refused.append(status.response_code)
            room.release()

        async def take_room() -> None:
            try:
                async with asyncio.timeout(self._confirm_timeout_s):
                    await room.acquire()
            except TimeoutError as error:
                raise SandboxError(
                    f"the broker did not confirm messages of {self._stream} within {self._confirm_timeout_s:g} s. Does it run?"
                ) from error

        broker = self._broker
        client = rstream.Producer(broker.host, broker.port, username=login.user, password=login.password, vhost=broker.virtual_host)
        async with connecting(client) as producer:
            for entry in self._entries(_with_duplicates(messages, duplicates, random.Random(seed))):
                await take_room()
                await producer.send_sub_entry(
                    self._stream,
                    [message.amqp() for message in entry],
                    compression_type=rstream.CompressionType.Gzip,
                    on_publish_confirm=confirmed,
                )
                published += len(entry)
            for _ in range(_IN_FLIGHT):
                await take_room()
        if refused:
            raise SandboxError(
                f"the broker refused {len(refused)} entries of {self._stream}, with the response codes {sorted(set(refused))}"
            )
        return published

    def _entries(self, messages: Iterable[Message]) -> Iterator[list[Message]]:
        entry: list[Message] = []
        size = 0
        for message in messages:
            if entry and (len(entry) == self._entry_messages or size + len(message.body) > _ENTRY_BYTES):
                yield entry
                entry, size = [], 0
            entry.append(message)
            size += len(message.body)
        if entry:
            yield entry


def _with_duplicates(messages: Iterable[Message], share: float, chance: random.Random) -> Iterator[Message]:
    for message in messages:
        yield message
        if chance.random() < share:
            yield message
