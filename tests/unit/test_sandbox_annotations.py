import json
from datetime import UTC, datetime
from typing import Any

import msgpack
import pytest

from azaion_daemon.sandbox.annotations import Author, Dialect, Role, Spelling, Status
from azaion_daemon.sandbox.scenes import draw_scene

AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def fields(body: bytes) -> Any:
    return msgpack.unpackb(body, timestamp=3, strict_map_key=False)


def test_a_created_message_has_its_fields_at_the_documented_positions() -> None:
    scene = draw_scene(1, size=32)
    message = Author("a@b.c", Role.OPERATOR).created("name", scene, media="v.mp4", time_ticks=70, at=AT)
    created, name, media, ticks, extension, detections, image, role, email, source, status = fields(message.body)
    assert (created, name, media, ticks, extension) == (AT, "name", "v.mp4", 70, "jpg")
    assert (image, role, email, source, status) == (scene.image_jpeg, 10, "a@b.c", 1, 10)
    box = scene.boxes[0]
    expected = {"classNum": box.class_id, "x": box.cx, "y": box.cy, "width": box.width, "height": box.height}
    assert json.loads(detections)[0] == expected


def test_an_edit_has_no_image_and_a_bulk_message_names_and_status() -> None:
    author = Author("a@b.c", Role.VALIDATOR)
    assert fields(author.edited("name", ()).body)[6] == b""
    assert fields(author.validated(["one", "two"]).body) == [["one", "two"], 30]
    assert fields(author.deleted(["one"]).body) == [["one"], 40]


def test_the_map_dialect_is_keyed_by_position() -> None:
    author = Author("a@b.c", Role.VALIDATOR, Dialect(payload="map"))
    assert fields(author.validated(["one"]).body) == {0: ["one"], 1: 30}


@pytest.mark.parametrize(
    ("spelling", "value"), [(Spelling.NAME, "Edited"), (Spelling.BYTES, b"Edited"), (Spelling.DIGITS, "20"), (Spelling.NUMBER, 20)]
)
def test_the_status_property_is_spelled_as_the_dialect_says(spelling: Spelling, value: object) -> None:
    message = Author("a@b.c", Role.OPERATOR, Dialect(spelling)).edited("name", ())
    assert message.status is Status.EDITED
    assert message.properties == {"AnnotationStatus": value, "Email": "a@b.c"}
