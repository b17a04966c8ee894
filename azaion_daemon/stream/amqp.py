"""The two sections of an AMQP 1.0 message that matter here: its application properties and its data.

rstream's own decoder trusts every count that it reads: a message of 13 bytes makes it ask for 16 GB. This one believes nothing that the
bytes at hand do not hold, copies nothing but the properties, and skips every other section by its size.

The encoding (AMQP 1.0, part 1.6): a value is a constructor byte and its bytes. The constructor's high nibble tells how long they are: 4 to
9 mean 0, 1, 2, 4, 8 and 16 bytes; A and B a size of 1 or 4 bytes and so many bytes; C to F the same for lists, maps and arrays. A section
is a 0x00, its code as an unsigned long, and one value.
"""

from dataclasses import dataclass, field

_APPLICATION_PROPERTIES = 0x74
_DATA = 0x75
_DESCRIBED = 0x00
_SMALL_ULONG, _ULONG, _ULONG_ZERO = 0x53, 0x80, 0x44
_BINARY = {0xA0, 0xB0}
_TEXT = {0xA1, 0xA3, 0xB1, 0xB3}
_UNSIGNED = {0x43, 0x44, 0x50, 0x52, 0x53, 0x60, 0x70, 0x80}
_SIGNED = {0x51, 0x54, 0x55, 0x61, 0x71, 0x81}
_MAP = {0xC1, 0xD1}
_MAX_PROPERTIES = 1000
_FIXED = {0x4: 0, 0x5: 1, 0x6: 2, 0x7: 4, 0x8: 8, 0x9: 16}
_SIZED = {0xA: 1, 0xB: 4, 0xC: 1, 0xD: 4, 0xE: 1, 0xF: 4}

Property = str | bytes | int | None


class AmqpError(ValueError):
    """The bytes are no AMQP 1.0 message; the text says where they go wrong."""


@dataclass(frozen=True, slots=True)
class AmqpMessage:
    """A message's application properties, and its data; None when it has no data section."""

    data: memoryview | bytes | None
    properties: dict[str, Property] = field(default_factory=dict)


def parse_message(content: bytes) -> AmqpMessage:
    """Find the sections that matter. `data` is a view into `content` when there is one data section, as there nearly always is.

    Raises:
        AmqpError: A section is cut short, or not what AMQP 1.0 allows there.
    """
    reader = _Reader(memoryview(content))
    data: list[memoryview] = []
    properties: dict[str, Property] = {}
    while not reader.at_end():
        code = _section_code(reader)
        constructor, value = reader.value()
        if code == _DATA:
            if constructor not in _BINARY:
                raise AmqpError(f"its data section holds a value of the type 0x{constructor:02x} and not bytes")
            data.append(value)
        elif code == _APPLICATION_PROPERTIES:
            if constructor not in _MAP:
                raise AmqpError(f"its application properties are of the type 0x{constructor:02x} and no map")
            properties = _properties(constructor, value)
    if not data:
        return AmqpMessage(None, properties)
    return AmqpMessage(data[0] if len(data) == 1 else b"".join(data), properties)


def _section_code(reader: "_Reader") -> int:
    if reader.byte() != _DESCRIBED:
        raise AmqpError(f"no section begins at byte {reader.offset - 1}")
    constructor, value = reader.value()
    if constructor not in {_SMALL_ULONG, _ULONG, _ULONG_ZERO}:
        raise AmqpError(f"the section that ends at byte {reader.offset} has no code")
    return int.from_bytes(value)


def _properties(constructor: int, content: memoryview) -> dict[str, Property]:
    reader = _Reader(content)
    count = int.from_bytes(reader.take(1 if constructor >> 4 == 0xC else 4))  # noqa: PLR2004 - the short form of a map
    if count % 2 or count > 2 * _MAX_PROPERTIES:
        raise AmqpError(f"its application properties have {count} keys and values")
    properties: dict[str, Property] = {}
    for _ in range(count // 2):
        key, value = _scalar(*reader.value()), _scalar(*reader.value())
        properties[key.decode(errors="replace") if isinstance(key, bytes) else str(key)] = value
    return properties


def _scalar(constructor: int, value: memoryview) -> Property:
    """A value that a property of ours may have; None for the types that none of ours has."""
    if constructor in _TEXT:
        return bytes(value).decode(errors="replace")
    if constructor in _BINARY:
        return bytes(value)
    if constructor in _UNSIGNED | _SIGNED:
        return int.from_bytes(value, signed=constructor in _SIGNED)
    return None


class _Reader:
    """Takes values off the front of some bytes, and never more than there are."""

    def __init__(self, content: memoryview) -> None:
        self._content = content
        self.offset = 0

    def at_end(self) -> bool:
        return self.offset == len(self._content)

    def byte(self) -> int:
        return self.take(1)[0]

    def take(self, size: int) -> memoryview:
        end = self.offset + size
        if end > len(self._content):
            raise AmqpError(f"it is cut short: byte {end} is wanted, it has {len(self._content)}")
        taken = self._content[self.offset : end]
        self.offset = end
        return taken

    def value(self) -> tuple[int, memoryview]:
        """The constructor of the next value, and its bytes without their size."""
        constructor = self.byte()
        kind = constructor >> 4
        if kind in _FIXED:
            return constructor, self.take(_FIXED[kind])
        if kind in _SIZED:
            return constructor, self.take(int.from_bytes(self.take(_SIZED[kind])))
        raise AmqpError(f"byte {self.offset - 1} is no AMQP type: 0x{constructor:02x}")
