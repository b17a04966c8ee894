"""What a resizer makes of one image: the pixels that the trainer would have seen, fewer of them."""

import hashlib
import io
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageOps, ImageStat
from PIL.JpegImagePlugin import JpegImageFile

from azaion_daemon.dataset.reduction import Kind, Outcome, Reduction, reduced_size
from azaion_daemon.dataset.resized_cache import cached
from azaion_daemon.dataset.resizer import Setup, reduce_image, resize
from tests.pictures import aerial, encoded, turned

PORTRAIT = aerial(240, 400)
PICTURE = aerial(400, 240)


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(str(tmp_path / "cache"), 128, 95, 1_000_000)


def put(directory: Path, content: bytes, name: str = "a.jpg") -> tuple[str, str]:
    path = directory / name
    path.write_bytes(content)
    return str(path), hashlib.sha256(content).hexdigest()


def opened(content: bytes | str) -> Image.Image:
    assert isinstance(content, bytes), content
    return Image.open(io.BytesIO(content))


def difference(one: Image.Image, other: Image.Image) -> float:
    """The mean, in grey levels."""
    found = ImageStat.Stat(ImageChops.difference(one.convert("RGB"), other.convert("RGB"))).mean
    return sum(found) / len(found)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(3840, 2160, (1280, 720)), (2160, 3840, (720, 1280)), (1281, 1281, (1280, 1280)), (4000, 3, (1280, 1)), (1367, 911, (1280, 854))],
)
def test_the_longer_side_becomes_the_training_size(width: int, height: int, expected: tuple[int, int]) -> None:
    assert reduced_size(width, height, 1280) == expected


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_the_result_is_upright_and_nothing_turns_it_again(setup: Setup, orientation: int, format_: str) -> None:
    content = turned(PICTURE, orientation, format_)
    made = opened(reduce_image(content, setup))
    expected = ImageOps.exif_transpose(opened(content)).resize(made.size, Image.Resampling.BOX)
    assert made.size == ((128, 77) if orientation < 5 else (77, 128))
    assert difference(made, expected) < 6
    assert "exif" not in made.info
    assert dict(made.getexif()) == {}


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0\0\0\0\0", b"Exif\0\0nothing", b"Exif\0\0"]
)
def test_exif_data_that_makes_no_sense_turns_nothing(setup: Setup, exif: bytes) -> None:
    made = opened(reduce_image(encoded(PICTURE, exif=exif), setup))
    assert difference(made, PICTURE.resize(made.size, Image.Resampling.BOX)) < 6


def test_an_orientation_in_xmp_data_is_none(setup: Setup) -> None:
    """Pillow believes it, the trainer's decoder does not."""
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    content = encoded(PICTURE, xmp=xmp)
    assert opened(content).getexif()[0x0112] == 6
    assert opened(reduce_image(content, setup)).size == (128, 77)


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA"])
def test_every_kind_of_png_becomes_a_jpeg(setup: Setup, mode: str) -> None:
    picture = PICTURE.convert(mode)
    if mode in {"LA", "RGBA"}:
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    made = opened(reduce_image(encoded(picture, "PNG"), setup))
    assert made.mode == ("L" if mode in {"L", "1", "LA"} else "RGB")
    plain = picture.convert("L" if made.mode == "L" else "RGB")  # the colour stays, also where it is transparent
    assert difference(made, plain.resize(made.size, Image.Resampling.BOX)) < 14


def test_of_sixteen_bits_the_upper_eight_count(setup: Setup) -> None:
    grey = PICTURE.convert("L")
    deep = Image.frombytes("I;16", grey.size, b"".join(bytes((0x55, value)) for value in grey.tobytes()))
    made = opened(reduce_image(encoded(deep, "PNG"), setup))
    assert difference(made, grey.resize(made.size, Image.Resampling.BOX)) < 6


def test_what_pillow_and_the_trainer_decode_differently_stays_as_it_is(setup: Setup, tmp_path: Path) -> None:
    path, digest = put(tmp_path, encoded(PICTURE.convert("RGBA"), "TIFF"), "a.tif")
    assert resize(path, digest, setup) == Outcome(Kind.KEPT, width=400, height=240)


@pytest.mark.parametrize(("quality", "layers"), [(94, [(2, 2), (1, 1), (1, 1)]), (95, [(1, 1), (1, 1), (1, 1)])])
def test_colour_is_as_fine_as_brightness_from_quality_95_on(setup: Setup, quality: int, layers: list[tuple[int, int]]) -> None:
    made = opened(reduce_image(encoded(PICTURE), setup._replace(quality=quality)))
    assert isinstance(made, JpegImageFile)
    assert [layer[1:3] for layer in made.layer] == layers


def test_a_large_image_goes_into_the_cache_and_stays_where_it_is(setup: Setup, tmp_path: Path) -> None:
    content = encoded(PORTRAIT)
    path, digest = put(tmp_path, content)
    outcome = resize(path, digest, setup)
    made = cached(Path(setup.cache), digest, Reduction(128, 95))
    assert outcome == Outcome(Kind.REDUCED, bytes=made.stat().st_size, width=240, height=400)
    assert opened(made.read_bytes()).size == (77, 128)
    assert Path(path).read_bytes() == content


def test_one_at_the_limit_is_small_enough_and_one_above_is_not(setup: Setup, tmp_path: Path) -> None:
    for width, kind in ((128, Kind.KEPT), (129, Kind.REDUCED)):
        path, digest = put(tmp_path, encoded(aerial(width, 50)))
        assert resize(path, digest, setup).kind is kind


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (encoded(PICTURE)[:-4000], "the image cannot be decoded: OSError: image file is truncated"),
        (b"no image at all", "the image cannot be decoded: UnidentifiedImageError"),
        (b"", "the image cannot be decoded: UnidentifiedImageError"),
        (encoded(Image.new("1", (1001, 1000)), "PNG"), "the image has 1001 x 1000 pixels, more than the 1000000 that are taken"),
    ],
)
def test_an_image_that_cannot_be_had_says_why(setup: Setup, tmp_path: Path, content: bytes, why: str) -> None:
    path, digest = put(tmp_path, content)
    outcome = resize(path, digest, setup)
    assert outcome.kind is Kind.UNUSABLE
    assert outcome.why.startswith(why)
    assert not Path(setup.cache).exists()


def test_an_image_that_is_another_or_gone_is_not_believed(setup: Setup, tmp_path: Path) -> None:
    path, _ = put(tmp_path, encoded(PICTURE))
    assert resize(path, "0" * 64, setup) == Outcome(Kind.REPLACED)
    assert resize(path + "x", "0" * 64, setup) == Outcome(Kind.GONE)
