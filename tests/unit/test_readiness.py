"""What would waste a GPU is found before one is taken, each with a name and what to do."""

from pathlib import Path
from typing import Any

import pytest

from azaion_daemon.dataset.classes import Classes
from azaion_daemon.dataset.counts import Counts, count
from azaion_daemon.dataset.disk import Disk
from azaion_daemon.dataset.entries import Entry, Exclusion, Reason
from azaion_daemon.dataset.readiness import Code, Finding, Readiness, judge
from azaion_daemon.dataset.split import Side
from azaion_daemon.sections import DatasetSettings
from azaion_daemon.store.layout import Home
from tests.unit.builders import row

NAMES = tuple(f"c{number}" for number in range(80))
CLASSES = Classes(NAMES, frozenset({0, 1, 20, 21, 40, 41}))
GIB = 1 << 30


def entries(**sides: int) -> list[Entry]:
    return [
        Entry(row(Home.VALIDATED, name=f"{side}{number}", media=f"{side}{number}"), f"media:{side}{number}", Side(side), (number % 2,))
        for side, images in sides.items()
        for number in range(images)
    ]


def judged(counts: Counts, *, disk: Disk | None = None, **settings: Any) -> Readiness:
    return judge(counts, CLASSES, DatasetSettings.model_validate(settings), disk)


def counts(*exclusions: Exclusion, **sides: int) -> Counts:
    return count(entries(**sides), exclusions, CLASSES)


def codes(findings: tuple[Finding, ...]) -> list[Code]:
    return [finding.code for finding in findings]


GOOD = {"train": 140, "valid": 40, "test": 20}


def test_a_good_dataset_has_neither_problems_nor_remarks() -> None:
    assert judged(counts(**GOOD)) == Readiness((), ())


def test_too_little_is_a_problem_that_names_the_number_and_the_setting() -> None:
    images, objects = judged(counts(train=7, valid=2, test=1), min_images=11, min_objects=12).problems
    assert (images.code, objects.code) == (Code.TOO_FEW_IMAGES, Code.TOO_FEW_OBJECTS)
    assert images.what == "10 images can be used, 11 are needed at least"
    assert ("dataset.min_images" in images.remedy, "dataset.min_objects" in objects.remedy) == (True, True)
    assert judged(counts(train=7, valid=2, test=1), min_images=10, min_objects=10).problems == ()


def test_without_any_image_there_is_one_problem_and_it_says_what_was_left_out() -> None:
    (problem,) = judged(counts(*[Exclusion(Reason.NO_LABEL, "no label: …")] * 3)).problems
    assert problem.code is Code.NO_IMAGES
    assert "3 are left out (no_label 3)" in problem.what


def test_every_empty_side_is_a_problem_that_says_how_to_divide() -> None:
    problems = judged(counts(train=200)).problems
    assert codes(problems) == [Code.EMPTY_SIDE, Code.EMPTY_SIDE]
    assert [problem.what.split(":")[0] for problem in problems] == ["no image for valid", "no image for test"]
    assert all("dataset.split_by" in problem.remedy for problem in problems)


@pytest.mark.parametrize("side", Side)
def test_a_side_of_background_alone_is_a_problem(side: Side) -> None:
    found = [entry._replace(class_ids=()) if entry.side is side else entry for entry in entries(**GOOD)]
    problems = judged(count(found, [], CLASSES), min_objects=1).problems
    assert codes(problems) == [Code.NO_OBJECTS]
    assert f"no labelled object in {side}" in problems[0].what


def test_all_problems_are_found_at_once() -> None:
    disk = Disk(Path("/d"), free_bytes=GIB, needed_bytes=GIB, reserve_bytes=GIB)
    problems = judged(counts(train=2), disk=disk).problems
    assert set(codes(problems)) == {Code.TOO_FEW_IMAGES, Code.TOO_FEW_OBJECTS, Code.EMPTY_SIDE, Code.TOO_LITTLE_DISK}


def test_a_class_that_nobody_drew_is_a_remark_unless_every_class_is_required() -> None:
    only_first = count([entry._replace(class_ids=(0,)) for entry in entries(**GOOD)], [], CLASSES)
    problems, remarks = judged(only_first)
    assert (problems, codes(remarks)) == ((), [Code.CLASS_WITHOUT_INSTANCE])
    assert "c1" in remarks[0].what
    problems, remarks = judged(only_first, require_every_class=True)
    assert (codes(problems), remarks) == ([Code.CLASS_WITHOUT_INSTANCE], ())


def test_a_class_that_was_drawn_in_one_mode_is_not_missing() -> None:
    in_winter = [entry._replace(class_ids=(0, 21)) for entry in entries(**GOOD)]
    assert judged(count(in_winter, [], CLASSES)) == Readiness((), ())


def test_a_class_that_stands_beside_train_only_is_a_remark() -> None:
    found = [entry._replace(class_ids=(0, 1, 40) if entry.side is Side.TEST else (0, 1)) for entry in entries(**GOOD)]
    problems, remarks = judged(count(found, [], CLASSES))
    assert (problems, codes(remarks)) == ((), [Code.CLASS_NOT_IN_TRAIN])
    assert "c40" in remarks[0].what


def test_ids_without_a_class_are_named_with_their_number() -> None:
    unknown = [Exclusion(Reason.UNKNOWN_CLASS, "…", 77)] * 3 + [Exclusion(Reason.UNKNOWN_CLASS, "…", 78)]
    (remark,) = judged(counts(*unknown, **GOOD)).remarks
    assert remark.code is Code.UNKNOWN_CLASSES
    assert "77 (3 annotations), 78 (1 annotations)" in remark.what
    assert "classes.json" in remark.remedy


def test_a_considerable_share_that_is_left_out_is_a_remark() -> None:
    left_out = [Exclusion(Reason.IMAGE_MISSING, "its image is missing")] * 20 + [Exclusion(Reason.NO_LABEL, "no label: …")]
    (remark,) = judged(counts(*left_out, **GOOD)).remarks
    assert remark.code is Code.MUCH_EXCLUDED
    assert remark.what == "21 of 221 validated annotations are left out: image_missing 20, no_label 1"
    assert judged(counts(*left_out[:10], **GOOD)).remarks == ()


def test_shares_that_are_missed_by_more_than_two_points_are_said() -> None:
    assert judged(counts(train=144, valid=36, test=20)).remarks == ()
    (remark,) = judged(counts(train=146, valid=34, test=20)).remarks
    assert remark.code is Code.SHARES_MISSED
    assert "73.0/17.0/10.0 by images instead of 70/20/10" in remark.what


def test_media_that_were_divided_are_a_remark_where_they_should_not_be() -> None:
    found = [entry._replace(annotation=entry.annotation._replace(media="v")) for entry in entries(**GOOD)]
    assert codes(judged(count(found, [], CLASSES)).remarks) == [Code.TORN_MEDIA]
    assert judged(count(found, [], CLASSES), split_by="name").remarks == ()


@pytest.mark.parametrize(("free", "ok"), [(7 * GIB, True), (7 * GIB - 1, False)])
def test_what_a_training_writes_and_what_must_stay_free_must_fit(free: int, *, ok: bool) -> None:
    disk = Disk(Path("/d"), free_bytes=free, needed_bytes=3 * GIB, reserve_bytes=4 * GIB)
    problems = judged(counts(**GOOD), disk=disk).problems
    assert codes(problems) == ([] if ok else [Code.TOO_LITTLE_DISK])
    assert all("dataset.min_free_disk" in problem.remedy and "3.0 GiB" in problem.what for problem in problems)


def test_files_that_cannot_be_made_are_a_problem_where_they_are_counted() -> None:
    disk = Disk(Path("/d"), free_bytes=GIB, needed_bytes=0, reserve_bytes=0, free_inodes=5, needed_inodes=20)
    assert codes(judged(counts(**GOOD), disk=disk).problems) == [Code.TOO_LITTLE_DISK]
    assert judged(counts(**GOOD), disk=disk._replace(free_inodes=None)).problems == ()


def test_a_finding_reads_as_its_name_what_is_wrong_and_what_to_do() -> None:
    assert str(Finding(Code.NO_IMAGES, "nothing is there", "Annotate")) == "no_images: nothing is there. Annotate"
