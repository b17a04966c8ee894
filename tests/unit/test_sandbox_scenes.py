import io
import json
from pathlib import Path

from PIL import Image

from azaion_daemon.sandbox.scenario import Fate, scenario
from azaion_daemon.sandbox.scenes import CLASS_NAMES, draw_scene, overlap, write_classes


def test_a_scene_depends_on_its_seed_and_size_alone() -> None:
    assert draw_scene(3) == draw_scene(3)
    assert draw_scene(3).image_jpeg != draw_scene(4).image_jpeg
    assert draw_scene(3, size=64).boxes == draw_scene(3).boxes


def test_a_scene_is_a_whole_jpeg_of_the_size_asked_for() -> None:
    with Image.open(io.BytesIO(draw_scene(1, size=96).image_jpeg)) as image:
        image.load()
        assert (image.format, image.size) == ("JPEG", (96, 96))


def test_shapes_lie_inside_and_do_not_overlap() -> None:
    seen = set()
    for seed in range(60):
        boxes = draw_scene(seed).boxes
        assert 1 <= len(boxes) <= 4
        for index, box in enumerate(boxes):
            assert all(-1e-6 <= corner <= 1 + 1e-6 for corner in box.corners())
            assert all(overlap(box.corners(), other.corners()) == 0 for other in boxes[:index])
            seen.add(box.class_id)
    assert seen == set(range(len(CLASS_NAMES)))


def test_overlap_of_equal_disjoint_and_half_covered_boxes() -> None:
    assert overlap((0, 0, 1, 1), (0, 0, 1, 1)) == 1
    assert overlap((0, 0, 1, 1), (1, 0, 2, 1)) == 0
    assert overlap((0, 0, 1, 1), (0, 0, 1, 0.5)) == 0.5


def test_classes_json_names_every_class(tmp_path: Path) -> None:
    write_classes(tmp_path / "classes.json")
    classes = json.loads((tmp_path / "classes.json").read_text())
    assert [(entry["Id"], entry["Name"]) for entry in classes] == list(enumerate(CLASS_NAMES))


def test_a_scenario_is_repeatable_and_has_every_fate() -> None:
    one, two = scenario(200, seed=5, size=32), scenario(200, seed=5, size=32)
    assert one == two
    assert len(one.truth) == 200
    for fate in Fate:
        assert one.names(fate)
    assert sum(truth.pending is not None for truth in one.truth.values()) > 0
    assert len({truth.media for truth in one.truth.values()}) < 150
