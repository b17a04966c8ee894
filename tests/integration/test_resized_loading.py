"""A model that is trained on resized images sees what it would have seen of the originals, as the trainer's own loader hands it over."""

import hashlib
from pathlib import Path

import pytest
from PIL import Image

from azaion_daemon.dataset.reduction import Kind, Reduction
from azaion_daemon.dataset.resized_cache import cached
from azaion_daemon.dataset.resizing import Resizing, Work
from tests.loading import compare
from tests.pictures import aerial, encoded, turned

pytestmark = pytest.mark.slow

SIZE = 640
LEVELS = 4.0
"""Grey levels of 255, the mean over an image's pixels. What is left is the JPEG, and the loader's own filter, which takes two pixels of
three; an image that is turned the wrong way is more than 20 away.
"""
BRIGHTER = 1.5
"""The same with its sign; a CMYK image may be one level off, since two libraries round differently."""
LABEL = "0 0.25 0.3 0.1 0.2\n1 0.7 0.6 0.05 0.05\n"

WIDE = aerial(1920, 1080)
GREY = WIDE.convert("L")
TRANSPARENT = WIDE.copy()
TRANSPARENT.putalpha(Image.linear_gradient("L").resize(WIDE.size))
DEEP = Image.frombytes("I;16", GREY.size, b"".join(bytes((0x80, value)) for value in GREY.tobytes()))

CASES: dict[str, bytes] = {
    "jpeg.jpg": encoded(WIDE),
    "portrait.jpg": encoded(aerial(1080, 1920)),
    "panorama.jpg": encoded(aerial(3000, 1500)),
    "odd.jpg": encoded(aerial(1367, 911)),
    "just_above.jpg": encoded(aerial(641, 361)),
    "at_the_limit.jpg": encoded(aerial(640, 361)),
    "below.jpg": encoded(aerial(500, 400)),
    "cmyk.jpg": encoded(WIDE.convert("CMYK")),
    "grey.jpg": encoded(GREY),
    "progressive.jpg": encoded(WIDE, progressive=True),
    "plain.png": encoded(WIDE, "PNG"),
    "alpha.png": encoded(TRANSPARENT, "PNG"),
    "grey_alpha.png": encoded(TRANSPARENT.convert("LA"), "PNG"),
    "palette.png": encoded(WIDE.quantize(256), "PNG"),
    "deep.png": encoded(DEEP, "PNG"),
    "plain.bmp": encoded(WIDE, "BMP"),
    "alpha.webp": encoded(TRANSPARENT, "WEBP", quality=95),
    "plain.tif": encoded(WIDE, "TIFF"),
    "alpha.tiff": encoded(TRANSPARENT, "TIFF"),
    "deep.tiff": encoded(DEEP, "TIFF"),
    "cmyk.tiff": encoded(WIDE.convert("CMYK"), "TIFF"),
    **{f"turned_{number}.jpg": turned(WIDE, number) for number in range(1, 9)},
    **{f"turned_{number}.png": turned(WIDE, number, "PNG") for number in range(1, 9)},
    "turned_6.webp": turned(WIDE, 6, "WEBP"),
    "turned_6.tif": encoded(WIDE, "TIFF", tiffinfo={0x0112: 6}),
}
LEFT = {"at_the_limit.jpg", "below.jpg", "alpha.tiff"}


def label_for(images: Path, name: str) -> None:
    labels = images.parent / "labels"
    labels.mkdir(exist_ok=True)
    (labels / f"{name}.txt").write_text(LABEL)


async def test_the_loader_hands_over_the_same_of_resized_images(tmp_path: Path) -> None:
    originals, resized, cache = tmp_path / "originals" / "images", tmp_path / "resized" / "images", tmp_path / "cache"
    originals.mkdir(parents=True)
    resized.mkdir(parents=True)
    how, work = Reduction(SIZE, 90), []
    for file, content in CASES.items():
        name = file.replace(".", "_")
        path = originals / f"{name}.{file.rpartition('.')[2]}"
        path.write_bytes(content)
        label_for(originals, name)
        label_for(resized, name)
        work.append(Work(name, str(path), hashlib.sha256(content).hexdigest()))
    outcomes = await Resizing(cache, how, max_pixels=1 << 30, min_free_bytes=0).run(work)
    assert {name for name, outcome in outcomes.items() if outcome.kind is Kind.KEPT} == {file.replace(".", "_") for file in LEFT}
    for name, path_, digest in work:
        path = Path(path_)
        made = path if outcomes[name].kind is Kind.KEPT else cached(cache, digest, how)
        (resized / (name + made.suffix)).hardlink_to(made)
    found = compare(originals, resized, SIZE)
    assert len(found) == 2 * len(CASES)
    assert {case["boxes"] for case in found.values()} == {2}
    assert [name for name, case in found.items() if not case["same_shape"]] == []
    assert [name for name, case in found.items() if not case["same_labels"]] == []
    assert {name: case["levels"] for name, case in found.items() if case["levels"] >= LEVELS} == {}
    assert {name: case["brighter"] for name, case in found.items() if abs(case["brighter"]) >= BRIGHTER} == {}
