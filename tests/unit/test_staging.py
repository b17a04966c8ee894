"""The first step of a batch: images are decoded in full, good ones lie in `incoming`, bad messages in the quarantine."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from azaion_daemon.errors import StorageError
from azaion_daemon.ingest.staging import Stager, image_size
from azaion_daemon.sections import IngestSettings
from azaion_daemon.store.quarantine import Quarantine
from azaion_daemon.stream.events import AnnotationEvent, RawMessage, Status
from tests.unit.builders import bulk, created, edited, payload, picture, raw, staged

SETTINGS = IngestSettings()
BIG = picture(5, size=256)


class Place:
    def __init__(self, root: Path) -> None:
        self.incoming, self.quarantine = root / "incoming", root / "quarantine"
        self.incoming.mkdir()
        self.quarantine.mkdir()
        self.stager = Stager("s", self.incoming, Quarantine(self.quarantine), clock=lambda: 7.0)

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.incoming.parent)): path.read_bytes() for path in self.incoming.parent.rglob("*") if path.is_file()
        }


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    one = Place(tmp_path)
    yield one
    one.stager.close()


def with_image(offset: int, image: bytes, extension: str = "jpg") -> RawMessage:
    return raw(offset, payload(image=image, extension=extension), {"AnnotationStatus": "Created"})


def test_a_good_image_is_staged_under_its_offset(place: Place) -> None:
    (message,) = place.stager.stage([created(42, number=3)], SETTINGS)
    assert message.image == staged(3, "42.image")
    assert place.files() == {"incoming/42.image": picture(3)}


def test_a_staged_event_has_no_image_bytes_any_more(place: Place) -> None:
    (message,) = place.stager.stage([created(1)], SETTINGS)
    assert isinstance(message.decoded.event, AnnotationEvent)
    assert message.decoded.event.image is None
    assert message.bytes == len(created(1).data)


def test_messages_without_an_image_leave_no_file(place: Place) -> None:
    place.stager.stage([edited(1), bulk(2, Status.VALIDATED, ["a"]), created(3, number=None)], SETTINGS)
    assert place.files() == {}


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "BMP", "WEBP"])
def test_a_truncated_image_is_quarantined_whole(place: Place, format_: str, keep: float) -> None:
    image = picture(5, format_, 256)
    message = with_image(9, image[: int(len(image) * keep)])
    (result,) = place.stager.stage([message], SETTINGS)
    assert result.decoded.event is None
    assert result.image is None
    assert "cannot be decoded" in (result.decoded.rejection or "")
    assert place.files()["quarantine/9.amqp"] == message.data
    assert not list(place.incoming.iterdir())


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "BMP", "WEBP", "TIFF"])
def test_a_whole_image_of_every_format_is_taken(format_: str) -> None:
    assert image_size(picture(1, format_, 40), max_pixels=10_000) == (40, 40)


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded() -> None:
    reason = image_size(BIG, max_pixels=65_535)
    assert isinstance(reason, str)
    assert "256 x 256" in reason
    assert "ingest.max_image_pixels" in reason


def test_a_png_named_jpg_is_an_image(place: Place) -> None:
    (message,) = place.stager.stage([with_image(1, picture(1, "PNG"))], SETTINGS)
    assert message.decoded.rejection is None


def test_the_reason_lies_beside_the_quarantined_message(place: Place) -> None:
    place.stager.stage([with_image(9, b"noise")], SETTINGS)
    entry = json.loads(place.files()["quarantine/9.json"])
    assert (entry["stream"], entry["offset"], entry["time"]) == ("s", 9, 7.0)
    assert "cannot be decoded" in entry["reason"]


def test_bad_messages_do_not_disturb_good_ones_around_them(place: Place) -> None:
    found = place.stager.stage([created(1), RawMessage(2, b"bad"), created(3, "b", 1)], SETTINGS)
    assert [message.decoded.position for message in found] == [1, 2, 3]
    assert [message.image is not None for message in found] == [True, False, True]


def test_staging_the_same_messages_again_is_the_same(place: Place) -> None:
    batch = [created(1), RawMessage(2, b"bad"), with_image(3, BIG[:500]), bulk(4, Status.DELETED, ["a", "../b"]), edited(5)]
    first = place.stager.stage(batch, SETTINGS)
    files = place.files()
    assert place.stager.stage(batch, SETTINGS) == first
    assert place.files() == files


def test_half_a_file_of_a_crash_is_replaced_by_the_whole(place: Place) -> None:
    (place.incoming / "1.image").write_bytes(picture(0) + b"longer than before")
    place.stager.stage([created(1)], SETTINGS)
    assert place.files()["incoming/1.image"] == picture(0)


def test_settings_of_the_moment_decide(place: Place) -> None:
    assert place.stager.stage([created(1)], IngestSettings(image_extensions=("png",)))[0].decoded.rejection is not None
    assert place.stager.stage([created(1)], IngestSettings(max_image_pixels=5))[0].decoded.rejection is not None
    assert place.stager.stage([created(1)], SETTINGS)[0].decoded.rejection is None


def test_a_disk_that_fails_is_a_storage_error(place: Place) -> None:
    place.incoming.rmdir()
    with pytest.raises(StorageError, match="writing what was received"):
        place.stager.stage([created(1)], SETTINGS)


_BOMBS = """
import io, resource, sys
from concurrent.futures import ThreadPoolExecutor
from PIL import Image
from azaion_daemon.ingest.staging import image_size

packed = io.BytesIO()
Image.new("L", (10_000, 10_000)).save(packed, "PNG", compress_level=1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with ThreadPoolExecutor(4) as threads:
    sizes = list(threads.map(lambda _: image_size(packed.getvalue(), max_pixels=200_000_000), range(4)))
assert sizes == [(10_000, 10_000)] * 4, sizes
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_images_that_unpack_to_a_hundred_times_their_size_do_so_one_at_a_time() -> None:
    done = subprocess.run([sys.executable, "-c", _BOMBS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 190_000  # KiB; four at a time take 250,000, though making the first one has taken 100,000 before
