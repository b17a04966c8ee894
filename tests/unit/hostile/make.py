"""Makes the corpus of hostile messages beside it: `python -m tests.unit.hostile.make`.

A file `{name}.amqp` is a message as the broker would deliver it; `expected.json` says of each what the stager must make of it: accepted,
rejected, or partly (a bulk message of which some names are applied), and a fragment of the reason.
"""

import json
import struct
from pathlib import Path
from typing import Literal

import msgpack

from azaion_daemon.stream.events import Status
from tests.unit.builders import bulk, payload, picture, raw

HERE = Path(__file__).parent
MAX_IMAGE_BYTES = 64 * 1024
MAX_IMAGE_PIXELS = 100_000

Outcome = Literal["accepted", "rejected", "partly"]
CREATED = {"AnnotationStatus": "Created"}
VALIDATED = {"AnnotationStatus": "Validated"}
IMAGE = picture(0)
BOX = {"cls": 1, "x": 0.5, "y": 0.5, "w": 0.25, "h": 0.25}

corpus: dict[str, tuple[bytes, Outcome, str]] = {}


def add(name: str, data: bytes, outcome: Outcome, why: str = "") -> None:
    assert name not in corpus
    corpus[name] = (data, outcome, why)


def annotation(name: str, outcome: Outcome, why: str = "", **fields: object) -> None:
    """An annotation message with some fields replaced."""
    content = payload(fields.pop("annotation", "a"), **{"image": IMAGE, **fields})
    add(name, raw(0, content, CREATED).data, outcome, why)


def body(name: str, content: bytes, outcome: Outcome, why: str = "", properties: dict[str, str] | None = None) -> None:
    """A message with these bytes as its payload."""
    add(name, raw(0, content, CREATED if properties is None else properties).data, outcome, why)


def section(descriptor: int, value: bytes) -> bytes:
    """A section of an AMQP 1.0 message."""
    return bytes([0, 0x53, descriptor]) + value


def amqp() -> None:
    whole = raw(0, payload(image=IMAGE), CREATED).data
    add("empty", b"", "rejected", "AMQP")
    add("zero", b"\0", "rejected", "AMQP")
    add("zeros", bytes(4096), "rejected", "AMQP")
    add("text", b"GET / HTTP/1.1\r\n\r\n", "rejected", "AMQP")
    add("all-bytes", bytes(range(256)), "rejected", "AMQP")
    add("cut-in-half", whole[: len(whole) // 2], "rejected", "")
    add("cut-by-one-byte", whole[:-1], "rejected", "")
    add("cut-in-the-properties", whole[:20], "rejected", "")
    add("appended-garbage", whole + b"\xff\xff\xff\xff", "rejected", "AMQP")
    huge = struct.pack(">I", 2**31 - 1)
    for kind, constructor in {"list": 0xD0, "map": 0xD1, "array": 0xF0, "binary": 0xB0, "string": 0xB1}.items():
        tail = b"\x40" if kind == "array" else b""
        add(f"amqp-{kind}-of-2-31", section(0x74, bytes([constructor]) + huge + huge + tail), "rejected", "AMQP")
    add("amqp-array-of-2-32-nulls", section(0x77, b"\xf0" + b"\xff" * 8 + b"\x40"), "rejected", "AMQP")
    add("amqp-list-of-2-32-in-a-footer", whole + section(0x78, b"\xd0" + b"\xff" * 8), "rejected", "AMQP")
    add("amqp-array-of-2-24-lists", section(0x77, b"\xf0" + b"\0\0\0\x02" + struct.pack(">I", 2**24) + b"\x45"), "rejected", "AMQP")
    add("amqp-described-for-ever", section(0x77, bytes(5000)), "rejected", "AMQP")
    add("amqp-unknown-constructor", section(0x75, b"\xee\x01"), "rejected", "AMQP")
    add("amqp-value-instead-of-data", section(0x74, b"\xc1\x01\x00") + section(0x77, b"\xa1\x02hi"), "rejected", "no data section")
    add("amqp-nothing-but-properties", section(0x74, b"\xc1\x01\x00"), "rejected", "no data section")
    properties_as_list = section(0x74, b"\xc0\x02\x01\x40")
    add("amqp-properties-are-a-list", properties_as_list + section(0x75, b"\xa0\x01\xc0"), "rejected", "and no map")


def properties() -> None:
    good = payload(image=IMAGE)
    for name, value in {
        "unknown": "Approved", "empty": "", "number": 25, "negative": -10, "huge-digits": "1" * 5000, "float": 10.0, "true": True,
        "dunder": "__class__", "not-utf-8": b"\xff\xfe",
    }.items():  # fmt: skip
        add(f"status-{name}", raw(0, good, {"AnnotationStatus": value}).data, "rejected", "AnnotationStatus")
    add("status-missing", raw(0, good, {"Email": "u@x.io"}).data, "rejected", "AnnotationStatus is missing")
    add("status-none-at-all", raw(0, good).data, "rejected", "AnnotationStatus is missing")
    add("status-spelled-otherwise", raw(0, good, {"annotationstatus": "Created"}).data, "rejected", "AnnotationStatus is missing")
    add("email-not-utf-8", raw(0, good, {**CREATED, "Email": b"\xff\xfe@x"}).data, "accepted")


def packing() -> None:
    whole = msgpack.packb(payload(image=IMAGE))
    body("payload-empty", b"", "rejected", "")
    body("payload-not-msgpack", b"\xc1" * 8, "rejected", "msgpack")
    body("payload-json", b'{"name": "a"}', "rejected", "msgpack")
    body("payload-truncated", whole[:-30], "rejected", "msgpack")
    body("payload-twice", whole + whole, "rejected", "msgpack")
    body("payload-a-number", b"\x07", "rejected", "neither an array nor a map")
    body("payload-nil", b"\xc0", "rejected", "neither an array nor a map")
    body("payload-array-of-2-31", b"\xdd\x7f\xff\xff\xff", "rejected", "msgpack")
    body("payload-map-of-2-31", b"\xdf\x7f\xff\xff\xff", "rejected", "msgpack")
    body("payload-bytes-of-2-31", b"\xc6\x7f\xff\xff\xff", "rejected", "msgpack")
    body("payload-text-of-2-31", b"\x92\xdb\x7f\xff\xff\xff", "rejected", "msgpack")
    body("payload-nested-10000", b"\x91" * 10_000 + b"\xc0", "rejected", "msgpack")
    body("payload-list-as-key", b"\x81\x91\x01\x02", "rejected", "msgpack")
    body("payload-empty-array", b"\x90", "rejected", "name")
    body("payload-empty-map", b"\x80", "rejected", "name")
    body("payload-keyed-by-text", msgpack.packb({str(key): value for key, value in enumerate(payload())}), "rejected", "name")
    body("payload-float-keys", msgpack.packb({float(key): value for key, value in enumerate(payload(image=IMAGE))}), "accepted")
    body("payload-name-not-utf-8", b"\x92\xc0\xa2\xff\xfe", "rejected", "msgpack")
    for depth in (900, 1010):
        body(f"payload-name-nested-{depth}", b"\x92\xc0" + b"\x91" * depth + b"\xc0", "rejected", "name")
        body(f"payload-name-nested-maps-{depth}", b"\x92\xc0" + b"\x81\xc0" * depth + b"\xc0", "rejected", "name")
        body(f"payload-name-of-bulk-nested-{depth}", b"\x91\x91" + b"\x91" * depth + b"\xc0", "rejected", "names", VALIDATED)
    body("payload-extension-type", b"\x92\xc0\xd4\x05\x00", "rejected", "name")
    body("payload-bad-timestamp", b"\x91\xd7\xff" + b"\xff" * 8, "rejected", "msgpack")


def names() -> None:
    for name, value, why in [
        ("empty", "", "empty"),
        ("nil", None, "not a text"),
        ("number", 5, "not a text"),
        ("bytes", b"a", "not a text"),
        ("list", ["a"], "not a text"),
        ("dot", ".", "dot"),
        ("dots", "..", "dot"),
        ("hidden", ".bashrc", "dot"),
        ("parent", "../a", "dot"),
        ("inner-parent", "a/../../b", "separator"),
        ("absolute", "/etc/passwd", "separator"),
        ("backslash", "..\\a", "dot"),
        ("windows", "C:\\a", "separator"),
        ("nul", "a\0b", "unprintable"),
        ("newline", "a\nb", "unprintable"),
        ("bell", "\x07", "unprintable"),
        ("right-to-left", "a\u202egpj", "unprintable"),
        ("10000-characters", "x" * 10_000, "longer"),
        ("201-bytes", "ä" * 100 + "x", "longer"),
    ]:
        annotation(f"name-{name}", "rejected", why, annotation=value)
    annotation("name-200-bytes", "accepted", annotation="ä" * 100)
    annotation("name-blank-and-quotes", "accepted", annotation="a 'b' \"c\" $(d) *")
    annotation("name-like-a-label", "accepted", annotation="b.txt")


def fields() -> None:
    wrong: dict[str, list[object]] = {
        "created": [5, 1.5, b"x", [1], "yesterday", "2026-13-45", msgpack.Timestamp(2**62, 0)],
        "media": [5, b"x", ["v"]],
        "ticks": ["7", 1.5, True, [7], 2**63, 2**64 - 1],
        "email": [5, b"x", {}],
        "source": ["Manual", 1.5, False, 2**63],
    }
    for name, values in wrong.items():
        for number, value in enumerate(values):
            annotation(f"field-{name}-{number}", "rejected", "position", **{name: value})
    for name, value in {"unknown": 55, "negative": -1, "word": "Wizard", "nil": None, "huge-digits": "9" * 5000}.items():
        annotation(f"role-{name}", "accepted", role=value)
    for name, value in {"float": 20.0, "list": [20], "true": True, "beyond-64-bits": 2**64 - 1}.items():
        annotation(f"role-{name}", "rejected", "position 7", role=value)


def detections() -> None:
    for name, value, why in [
        ("nil", None, "not a JSON text"),
        ("number", 5, "not a JSON text"),
        ("bytes", b"[]", "not a JSON text"),
        ("no-json", "][", "not JSON"),
        ("empty-text", "", "not JSON"),
        ("cut", '[{"cls": 1, "x": 0.5', "not JSON"),
        ("object", "{}", "not a JSON list"),
        ("null", "null", "not a JSON list"),
        ("nested-20000", "[" * 20_000, "not JSON"),
        ("of-numbers", "[1, 2]", "not an object"),
        ("nested-list", "[[]]", "not an object"),
    ]:
        annotation(f"detections-{name}", "rejected", why, detections=value)
    changes: list[tuple[str, dict[str, object], str]] = [
        ("x-missing", {"x": ...}, "no number for x"),
        ("class-missing", {"cls": ...}, "no number for cls"),
        ("x-text", {"x": "0.5"}, "no number for x"),
        ("x-null", {"x": None}, "no number for x"),
        ("x-true", {"x": True}, "no number for x"),
        ("class-half", {"cls": 1.5}, "not an integer"),
        ("class-nan", {"cls": float("nan")}, "not an integer"),
        ("class-infinite", {"cls": float("inf")}, "not an integer"),
        ("x-beyond-float", {"x": 10**400}, "out of range"),
    ]
    for name, change, why in changes:
        merged: dict[str, object] = {**BOX, **change}
        box = {key: value for key, value in merged.items() if value is not ...}
        annotation(f"detection-{name}", "rejected", why, detections=json.dumps([box]))
    annotation("detection-10000-digits", "rejected", "not JSON", detections=f'[{{"cls": {"1" * 10_000}}}]')
    annotation("detections-none", "accepted", detections=[])
    odd: dict[str, dict[str, object]] = {
        "nan": {"x": float("nan")}, "infinite": {"y": float("-inf")}, "outside": {"w": 17.5}, "negative": {"h": -1},
        "class-unknown": {"cls": 10**30}, "class-negative": {"cls": -1}, "denormal": {"x": 5e-324},
    }  # fmt: skip
    for name, change in odd.items():
        annotation(f"detection-{name}", "accepted", detections=json.dumps([{**BOX, **change}]))


def images() -> None:
    annotation("image-empty", "accepted", image=b"")
    annotation("image-nil", "accepted", image=None)
    annotation("image-text", "rejected", "position 6", image="no bytes")
    annotation("image-number", "rejected", "position 6", image=0)
    annotation("image-noise", "rejected", "cannot be decoded", image=b"\x17" * 5000)
    annotation("image-only-its-magic", "rejected", "cannot be decoded", image=b"\xff\xd8\xff\xe0")
    big = picture(0, size=64)
    annotation("image-half", "rejected", "cannot be decoded", image=big[: len(big) // 2])
    annotation("image-nine-tenths", "rejected", "cannot be decoded", image=big[: len(big) * 9 // 10])
    annotation("image-half-png", "rejected", "cannot be decoded", image=picture(0, "PNG")[:1500])
    annotation("image-png-named-jpg", "accepted", image=picture(0, "PNG"))
    annotation("image-gif", "rejected", "cannot be decoded", image=picture(0, "GIF"))
    annotation("image-too-many-bytes", "rejected", "max_image_bytes", image=bytes(MAX_IMAGE_BYTES + 1))
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 60_000, 60_000) + b"\x08\x02\0\0\0"
    annotation("image-of-giant-size", "rejected", "", image=header + picture(0, "PNG")[29:])
    annotation("image-svg", "rejected", "cannot be decoded", image=b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    for name, extension, why in [
        ("exe", "exe", "extension"), ("txt", "txt", "extension"), ("path", "jpg/../../x", "extension"), ("nil", None, "extension"),
        ("nul", "jpg\0", "extension"), ("empty", "", "extension"), ("two-dots", "..jpg", "extension"), ("number", 5, "position 4"),
        ("10000", "j" * 10_000, "extension"),
    ]:  # fmt: skip
        annotation(f"extension-{name}", "rejected", why, extension=extension)
    annotation("extension-shouted", "accepted", extension=".JPG")


def bulks() -> None:
    add("names-nil", raw(0, [None, 30], VALIDATED).data, "rejected", "names")
    add("names-text", raw(0, ["a", 30], VALIDATED).data, "rejected", "names")
    add("names-map", raw(0, [{"a": 1}], VALIDATED).data, "rejected", "names")
    add("names-missing", raw(0, [], VALIDATED).data, "rejected", "names")
    add("names-none", bulk(0, Status.VALIDATED, []).data, "accepted")
    add("names-all-bad", bulk(0, Status.DELETED, ["../a", "", 5, None]).data, "rejected", "4 of 4 names")
    add("names-some-bad", bulk(0, Status.DELETED, ["a", "../b", "c", "x" * 10_000]).data, "partly", "2 of 4 names")
    add("names-many-bad", bulk(0, Status.VALIDATED, ["a", *[f"/{n}" for n in range(100)]]).data, "partly", "and 80 more")
    add("names-twice", bulk(0, Status.VALIDATED, ["a", "a"]).data, "accepted")


def make() -> None:
    """Write the corpus anew."""
    for build in (amqp, properties, packing, names, fields, detections, images, bulks):
        build()
    for old in HERE.glob("*.amqp"):
        old.unlink()
    for name, (data, _, _) in corpus.items():
        (HERE / f"{name}.amqp").write_bytes(data)
    expected = {name: {"outcome": outcome, "why": why} for name, (_, outcome, why) in sorted(corpus.items())}
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    print(len(corpus), "messages")


if __name__ == "__main__":
    make()
