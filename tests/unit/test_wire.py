"""What the producer's contract leaves open is taken in every spelling; what would have to be guessed is refused; nothing ever escapes."""

import json
import resource
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgpack
import psutil
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rstream import AMQPMessage

from azaion_daemon.ingest.staging import Stager
from azaion_daemon.sections import IngestSettings
from azaion_daemon.store.labels import Detection, parse_label
from azaion_daemon.store.quarantine import Quarantine
from azaion_daemon.stream.events import AnnotationEvent, BulkEvent, Decoded, Fault, RawMessage, Role, Status
from azaion_daemon.stream.wire import decode, message_digest
from tests.unit.builders import BOX, CREATED_AT, DETECTIONS, bulk, created, payload, picture, raw
from tests.unit.hostile.make import HERE, MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS

EXTENSIONS = frozenset({"jpg", "png"})
CREATED: dict[str, Any] = {"AnnotationStatus": "Created"}
EXPECTED: dict[str, dict[str, str]] = json.loads((HERE / "expected.json").read_text())


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """A message that asks for gigabytes fails a test here, and not the machine."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + (256 << 20), hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def read(message: RawMessage) -> Decoded:
    decoded = decode(message, extensions=EXTENSIONS, max_image_bytes=1 << 20)
    assert "MemoryError" not in (decoded.rejection or ""), "a message of some bytes must not ask for so much memory"
    return decoded


def annotation(body: object, properties: dict[Any, Any] | None = None) -> AnnotationEvent:
    decoded = read(raw(7, body, CREATED if properties is None else properties))
    assert decoded.rejection is None
    assert isinstance(decoded.event, AnnotationEvent)
    return decoded.event


def rejection(body: object, properties: dict[Any, Any] | None = None) -> str:
    decoded = read(raw(7, body, CREATED if properties is None else properties))
    assert decoded.event is None
    assert decoded.rejection is not None
    assert decoded.fault is not None
    return decoded.rejection


# The routing property


@pytest.mark.parametrize("key", ["AnnotationStatus", b"AnnotationStatus"])
@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("spell", ["Name", "NAME", "name", "bytes", "digits", "digits as bytes", "int", "blanks"])
def test_the_status_is_read_in_every_spelling(key: str | bytes, status: Status, spell: str) -> None:
    value = {
        "Name": status.name.capitalize(),
        "NAME": status.name,
        "name": status.name.lower(),
        "bytes": status.name.capitalize().encode(),
        "digits": str(int(status)),
        "digits as bytes": str(int(status)).encode(),
        "int": int(status),
        "blanks": f" {status.name} ",
    }[spell]
    body = payload() if status in {Status.CREATED, Status.EDITED} else [["a"], int(status)]
    event = read(raw(7, body, {key: value})).event
    assert event is not None
    assert event.status is status


def test_the_property_routes_and_not_the_status_in_the_payload() -> None:
    assert annotation(payload(status=20), {"AnnotationStatus": "Created"}).status is Status.CREATED


@pytest.mark.parametrize("email", ["p@x.io", b"p@x.io"])
def test_the_property_email_stands_in_for_a_missing_one(email: str | bytes) -> None:
    assert annotation(payload(email=None), {**CREATED, "Email": email}).email == "p@x.io"
    assert annotation(payload(email="own@x.io"), {**CREATED, "Email": email}).email == "own@x.io"


# The payload


def test_every_field_is_at_its_position() -> None:
    event = annotation(payload("n", image=picture(), role=20))
    assert event == AnnotationEvent(
        position=7, digest=event.digest, status=Status.CREATED, name="n", label=BOX, extension="jpg", image=picture(), role=20,
        email="u@x.io", media="v.mp4", time_ticks=7, created=CREATED_AT, source=1,
    )  # fmt: skip


def test_array_and_map_are_the_same() -> None:
    body = payload(image=picture())
    from_array, from_map = annotation(body), annotation(dict(enumerate(body)))
    assert from_array.digest != from_map.digest
    assert {name: getattr(from_array, name) for name in AnnotationEvent.__slots__ if name != "digest"} == {
        name: getattr(from_map, name) for name in AnnotationEvent.__slots__ if name != "digest"
    }


@pytest.mark.parametrize("length", range(6, 12))
@pytest.mark.parametrize("shape", ["array", "map"])
def test_missing_tail_fields_are_tolerated(length: int, shape: str) -> None:
    body = payload()[:length]
    event = annotation(body if shape == "array" else dict(enumerate(body)))
    assert (event.name, event.image) == ("a", None)
    assert event.role == (Role.OPERATOR if length > 7 else Role.NONE)


def test_extra_fields_are_ignored() -> None:
    assert annotation([*payload(), "more", {"and": "more"}]).name == "a"
    fields: dict[Any, Any] = dict(enumerate(payload()))
    assert annotation({**fields, 99: "more", "and": 1}).name == "a"


def test_nil_is_as_good_as_missing() -> None:
    event = annotation(payload(created=None, media=None, ticks=None, extension=None, role=None, email=None, source=None, status=None))
    assert (event.created, event.media, event.time_ticks, event.extension, event.role, event.source) == (None, "", None, "", 0, None)


@pytest.mark.parametrize("image", [None, b""])
def test_an_image_may_be_absent_in_two_ways(image: bytes | None) -> None:
    assert annotation(payload(image=image)).image is None


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("2026-03-01T12:00:00Z", CREATED_AT),
        ("2026-03-01T12:00:00", CREATED_AT),
        ("2026-03-01T14:00:00+02:00", CREATED_AT),
        ("2026-03-01 12:00:00.5", CREATED_AT + timedelta(seconds=0.5)),
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
        (msgpack.Timestamp(0, 0), datetime(1970, 1, 1, tzinfo=UTC)),
        (msgpack.Timestamp(-1, 500_000_000), datetime(1969, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC)),
    ],
)
def test_the_created_date_is_a_timestamp_or_iso_text(written: object, read_as: datetime) -> None:
    assert annotation(payload(created=written)).created == read_as


@pytest.mark.parametrize("hours", [-23, 23])
def test_dates_at_the_edge_of_the_calendar_can_be_used(hours: int) -> None:
    zone = timezone(timedelta(hours=hours))
    edge = datetime.max.replace(tzinfo=zone) if hours < 0 else datetime.min.replace(tzinfo=zone)
    event = annotation(payload(created=edge.isoformat()))
    assert event.created is not None
    assert isinstance(event.created.timestamp(), float)


@pytest.mark.parametrize(("written", "read_as"), [("jpg", "jpg"), (".jpg", "jpg"), ("JPG", "jpg"), (".PNG", "png"), ("gif", ""), ("", "")])
def test_the_extension_comes_with_or_without_its_dot_in_any_case(written: str, read_as: str) -> None:
    assert annotation(payload(extension=written)).extension == read_as


@pytest.mark.parametrize("role", list(Role))
def test_roles_come_as_numbers_and_as_names(role: Role) -> None:
    words = role.name.title().replace("_", "")
    assert [annotation(payload(role=one)).role for one in (int(role), str(int(role)), words, role.name)] == [role] * 4


@pytest.mark.parametrize(
    ("role", "validating"), [(20, True), (40, True), (1000, True), (0, False), (10, False), (30, False), (50, False), (60, False)]
)
def test_only_validators_and_admins_validate(role: int, *, validating: bool) -> None:
    assert annotation(payload(role=role)).validating is validating


@pytest.mark.parametrize("role", [7, -5, 2**62, "Wizard"])
def test_an_unknown_role_does_not_validate_and_is_no_error(role: object) -> None:
    event = annotation(payload(role=role))
    assert event.role not in set(Role)
    assert event.validating is False


# Detections


@pytest.mark.parametrize("x", ["x", "centerX", "center_x", "cx", "CENTERX", "Cx"])
@pytest.mark.parametrize("suffix", ["", "upper"])
def test_centres_are_read_in_every_spelling(x: str, suffix: str) -> None:
    y = x.replace("x", "y").replace("X", "Y")
    keys = [key.upper() if suffix else key for key in (x, y)]
    event = annotation(payload(detections=[{"cls": 1, keys[0]: 0.1, keys[1]: 0.2, "w": 0.3, "h": 0.4}]))
    assert parse_label(event.label) == [Detection(1, 0.1, 0.2, 0.3, 0.4)]


@pytest.mark.parametrize("class_key", ["cls", "class", "classNum", "class_num", "classNumber", "CLASSNUM"])
@pytest.mark.parametrize(("w", "h"), [("w", "h"), ("width", "height"), ("Width", "HEIGHT")])
def test_classes_and_sizes_are_read_in_every_spelling(class_key: str, w: str, h: str) -> None:
    event = annotation(payload(detections=[{class_key: 3, "x": 0.1, "y": 0.2, w: 0.3, h: 0.4, "confidence": 0.9, "who": None}]))
    assert parse_label(event.label) == [Detection(3, 0.1, 0.2, 0.3, 0.4)]


def test_no_detections_are_an_empty_label() -> None:
    assert annotation(payload(detections=[])).label == ""


def test_numbers_keep_every_digit() -> None:
    value = 0.12345678901234567
    event = annotation(payload(detections=[{**DETECTIONS[0], "x": value, "cls": 2.0, "y": 1}]))
    assert parse_label(event.label) == [Detection(2, value, 1.0, 0.25, 0.25)]


# Bulk messages


def test_a_bulk_message_names_each_once_in_order() -> None:
    event = read(bulk(7, Status.VALIDATED, ["b", "a", "b"])).event
    assert isinstance(event, BulkEvent)
    assert (event.names, event.position) == (("b", "a"), 7)


@pytest.mark.parametrize("body", [[["a"]], [["a"], 30, "more"], {0: ["a"]}, {0: ["a"], 1: 30, 2: []}])
def test_a_bulk_message_is_an_array_or_a_map_of_any_length(body: object) -> None:
    event = read(raw(7, body, {b"AnnotationStatus": b"Validated", b"Email": b"v@x.io"})).event
    assert isinstance(event, BulkEvent)
    assert (event.names, event.email) == (("a",), "v@x.io")


def test_valid_names_are_applied_beside_bad_ones_which_are_named() -> None:
    decoded = read(bulk(7, Status.DELETED, ["a", "../b", 5, "c"]))
    assert isinstance(decoded.event, BulkEvent)
    assert decoded.event.names == ("a", "c")
    assert decoded.rejection is not None
    assert "'../b'" in decoded.rejection
    assert "2 of 4" in decoded.rejection


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        (RawMessage(1, b"\xff"), Fault.ENVELOPE),
        (raw(1, payload(), {"AnnotationStatus": "Renamed"}), Fault.ENVELOPE),
        (raw(1, b"\xc1", CREATED), Fault.PAYLOAD),
        (bulk(1, Status.DELETED, ["a", "../b"]), Fault.NAME),
        (created(1, "../a"), Fault.NAME),
        (created(1, "a", role=1.5), Fault.FIELD),
        (created(1, "a", detections="{"), Fault.DETECTIONS),
        (created(1, "a", extension="exe"), Fault.IMAGE),
    ],
)
def test_what_is_wrong_is_told_coarsely_too(message: RawMessage, fault: Fault) -> None:
    assert read(message).fault is fault


# Digests


@pytest.mark.parametrize("bomb", [b"\x90", b"\x80", b"\xdc\xff\xff" + b"\xc0" * 65535], ids=["lists", "maps", "nils"])
def test_memory_stays_small_whatever_a_payload_would_grow_to(bomb: bytes) -> None:
    inner = b"\xdd" + (500_000).to_bytes(4) + bomb * 500_000 if len(bomb) == 1 else b"\xdc" + (100).to_bytes(2) + bomb * 100
    tracemalloc.start()
    decoded = decode(raw(0, b"\x92" + inner * 2, {"AnnotationStatus": "Created"}), extensions=frozenset({"jpg"}), max_image_bytes=1 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "more lists, maps or elements" in (decoded.rejection or "")
    assert peak < 60e6


def test_the_digest_is_of_the_payload_alone() -> None:
    one, other = raw(7, payload(), CREATED), raw(99, payload(), {**CREATED, "Email": "x"})
    assert read(one).digest == read(other).digest == message_digest(one)
    assert read(raw(7, payload("b"), CREATED)).digest != message_digest(one)


def test_a_message_that_cannot_be_read_has_a_digest_too() -> None:
    assert message_digest(RawMessage(1, b"x")) != message_digest(RawMessage(1, b"y"))


# Hostile messages


@pytest.fixture(scope="module")
def stager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stager]:
    root: Path = tmp_path_factory.mktemp("hostile")
    (root / "incoming").mkdir()
    (root / "quarantine").mkdir()
    one = Stager("s", root / "incoming", Quarantine(root / "quarantine"))
    yield one
    one.close()


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.timeout(10)
def test_a_hostile_message_of_the_corpus(stager: Stager, name: str) -> None:
    limits = IngestSettings(max_image_bytes=MAX_IMAGE_BYTES, max_image_pixels=MAX_IMAGE_PIXELS)
    (staged,) = stager.stage([RawMessage(0, (HERE / f"{name}.amqp").read_bytes())], limits)
    decoded = staged.decoded
    found = {(True, True): "partly", (True, False): "accepted", (False, True): "rejected"}.get(
        (decoded.event is not None, decoded.rejection is not None), "lost without a word"
    )
    assert found == EXPECTED[name]["outcome"], decoded.rejection
    assert EXPECTED[name]["why"] in (decoded.rejection or "")
    assert "MemoryError" not in (decoded.rejection or "")
    assert len(decoded.rejection or "") < 5000


def test_the_corpus_is_complete() -> None:
    assert {path.stem for path in HERE.glob("*.amqp")} == set(EXPECTED)
    assert len(EXPECTED) >= 60


def always_an_event_or_a_rejection(data: bytes) -> None:
    decoded = read(RawMessage(3, data))
    assert decoded.position == 3
    assert len(decoded.digest) == 32
    assert decoded.event is not None or decoded.rejection is not None
    assert (decoded.rejection is None) == (decoded.fault is None)


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_an_event_or_a_rejection(data: bytes) -> None:
    always_an_event_or_a_rejection(data)


@given(st.sampled_from([b"\xc1", b"\xd1", b"\xc0", b"\xd0", b"\xe0", b"\xf0", b"\xa0", b"\xb0", b"\0"]), st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
@example(b"\xd0", b"\xff" * 8)
@example(b"\xf0", b"\xff" * 8 + b"\x40")
@example(b"\xc0", b"\xff\x02\xd0" + b"\xff" * 8)
def test_any_amqp_section_gives_an_event_or_a_rejection(constructor: bytes, rest: bytes) -> None:
    always_an_event_or_a_rejection(b"\0\x53\x74" + constructor + rest)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_message_gives_an_event_or_a_rejection(data: st.DataObject) -> None:
    whole = bytearray(raw(0, payload(image=b"image"), CREATED).data)
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    always_an_event_or_a_rejection(bytes(whole[: data.draw(st.integers(0, len(whole)))]))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.integers(0, 12) | st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(VALUES, max_size=12) | st.dictionaries(st.integers(0, 12), VALUES, max_size=12) | VALUES, st.sampled_from(list(Status)))
@settings(max_examples=300, deadline=None)
def test_any_payload_gives_an_event_or_a_rejection(body: Any, status: Status) -> None:
    message = AMQPMessage(body=msgpack.packb(body), application_properties={"AnnotationStatus": int(status)})
    always_an_event_or_a_rejection(bytes(message))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["x", "Y", "w", "h", "cls", "cx"]) | st.text(max_size=3), inner, max_size=7)
    ),
    max_leaves=12,
)


@given(JSON | st.lists(JSON, max_size=3))
@settings(max_examples=300, deadline=None)
def test_any_detections_give_an_event_or_a_rejection(detections: Any) -> None:
    always_an_event_or_a_rejection(raw(0, payload(detections=json.dumps(detections)), CREATED).data)
