"""Every row of the table in `rules`, and what it says of flags, folding and bookkeeping."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from azaion_daemon.ingest.rules import Change, StagedImage, apply_annotation, apply_deleted, apply_validated
from azaion_daemon.store.layout import Home
from azaion_daemon.store.records import UNKNOWN_MEDIA, Annotation
from azaion_daemon.stream.events import AnnotationEvent, Role, Status
from tests.unit.builders import CLASSES, OPERATOR, VALIDATOR, event, row, staged

OLD, NEW, PENDING = "1 0.5 0.5 0.1 0.1\n", "2 0.5 0.5 0.2 0.2\n", "3 0.5 0.5 0.3 0.3\n"
SEED, VALIDATED, DELETED = Home.SEED, Home.VALIDATED, Home.DELETED
VALIDATING = [Role.VALIDATOR, Role.ADMIN, Role.API_ADMIN]
OTHERS = [Role.NONE, Role.OPERATOR, Role.COMPANION_PC, Role.RESOURCE_UPLOADER, Role.SERVICE, 7, -1]
HOMES = [None, SEED, VALIDATED, DELETED]


def apply(before: Annotation | None, this: AnnotationEvent, image: StagedImage | None = None, *, now: float = 100.0) -> Change:
    return apply_annotation(before, this, image, known_classes=CLASSES, now=now)


def after(before: Annotation | None, this: AnnotationEvent, image: StagedImage | None = None) -> Annotation:
    change = apply(before, this, image)
    assert change.ignored is None
    assert change.row is not None
    return change.row


def validated(before: Annotation | None, position: int = 9) -> Change:
    return apply_validated(before, position, known_classes=CLASSES, now=100.0)


def deleted(before: Annotation | None, position: int = 9) -> Change:
    return apply_deleted(before, position, known_classes=CLASSES, now=100.0)


def in_home(home: Home | None, **others: Any) -> Annotation | None:
    return None if home is None else row(home, label=OLD, **others)


# Created


@pytest.mark.parametrize("role", VALIDATING)
@pytest.mark.parametrize("home", HOMES)
def test_created_by_a_validating_role_is_validated_from_any_home(role: int, home: Home | None) -> None:
    became = after(in_home(home, pending=PENDING), event(role=role, label=NEW, position=5), staged(1))
    assert (became.home, became.label, became.pending) == (VALIDATED, NEW, None)
    assert (became.image, became.staged) == (staged(1).sha256, "1.image")


@pytest.mark.parametrize("role", OTHERS)
@pytest.mark.parametrize("home", [None, SEED, DELETED])
def test_created_by_another_is_seed(role: int, home: Home | None) -> None:
    became = after(in_home(home, pending=PENDING if home is DELETED else None), event(role=role, label=NEW, position=5), staged(1))
    assert (became.home, became.label, became.pending) == (SEED, NEW, None)
    assert (became.image, became.staged) == (staged(1).sha256, "1.image")


@pytest.mark.parametrize("role", OTHERS)
def test_created_by_another_on_a_validated_one_is_a_pending_revision(role: int) -> None:
    became = after(in_home(VALIDATED), event(role=role, label=NEW, position=5), staged(0))
    assert (became.home, became.label, became.pending) == (VALIDATED, OLD, NEW)
    assert became.image_conflict is False


def test_a_revision_with_another_image_keeps_the_image_and_is_flagged() -> None:
    before = in_home(VALIDATED, width=640)
    became = after(before, event(label=NEW, position=5), staged(1))
    assert (became.image, became.staged, became.width, became.extension) == (staged(0).sha256, None, 640, "jpg")
    assert became.image_conflict is True


def test_a_revision_gives_its_image_to_a_validated_one_that_lacks_it() -> None:
    became = after(in_home(VALIDATED, image=None, image_missing=True), event(label=NEW, position=5), staged(1))
    assert (became.label, became.pending) == (OLD, NEW)
    assert (became.image, became.staged, became.image_missing, became.image_conflict) == (staged(1).sha256, "1.image", False, False)


@pytest.mark.parametrize("role", [OPERATOR, VALIDATOR])
@pytest.mark.parametrize("home", HOMES)
def test_created_without_an_image_goes_where_it_would_with_one(role: int, home: Home | None) -> None:
    with_image = after(in_home(home), event(role=role, label=NEW, position=5), staged(0))
    without = after(in_home(home), event(role=role, label=NEW, position=5))
    assert (without.home, without.label, without.pending) == (with_image.home, with_image.label, with_image.pending)
    assert without.image_missing is (home is None)
    assert without.image == (None if home is None else staged(0).sha256)


@pytest.mark.parametrize("home", [SEED, VALIDATED, DELETED])
def test_a_created_that_was_applied_is_dropped_in_any_home(home: Home) -> None:
    first, second = event(position=1, label=OLD), event(position=2, label=NEW, role=VALIDATOR)
    became = after(after(None, first, staged(0)), second, staged(1))
    moved = became._replace(home=home)
    for late in (first, second):
        change = apply(moved, replace(late, position=50), staged(2))
        assert change.row is moved
        assert change.ignored is not None
        assert change.surprising is False


def test_the_same_payload_for_another_annotation_is_no_duplicate() -> None:
    other = after(None, event(name="b", digest=b"d" * 32), staged(0))
    assert other.name == "b"
    assert apply(row(name="a"), event(name="a", digest=b"d" * 32, position=2)).ignored is None


def test_digests_are_compared_whole_not_across_each_other() -> None:
    seen = bytes(range(64))
    assert apply(row(seen=seen), event(digest=seen[16:48])).ignored is None
    assert apply(row(seen=seen), event(digest=seen[32:])).ignored is not None


@pytest.mark.parametrize("status", [Status.EDITED])
def test_an_edit_with_a_digest_that_was_seen_is_applied(status: Status) -> None:
    before = after(None, event(position=1, label=OLD), staged(0))
    assert after(before, event(status, position=2, label=NEW, digest=before.seen)).label == NEW


# Edited


@pytest.mark.parametrize("role", VALIDATING)
def test_edited_by_a_validating_role_validates_a_seed(role: int) -> None:
    became = after(in_home(SEED), event(Status.EDITED, role=role, label=NEW, position=5))
    assert (became.home, became.label, became.pending, became.image) == (VALIDATED, NEW, None, staged(0).sha256)


def test_edited_by_a_validating_role_replaces_a_validated_label_and_its_revision() -> None:
    became = after(in_home(VALIDATED, pending=PENDING), event(Status.EDITED, role=VALIDATOR, label=NEW, position=5))
    assert (became.home, became.label, became.pending) == (VALIDATED, NEW, None)


@pytest.mark.parametrize("role", OTHERS)
def test_edited_by_another_replaces_a_seed_label(role: int) -> None:
    became = after(in_home(SEED), event(Status.EDITED, role=role, label=NEW, position=5))
    assert (became.home, became.label, became.pending) == (SEED, NEW, None)


@pytest.mark.parametrize("role", OTHERS)
@pytest.mark.parametrize("pending", [None, PENDING])
def test_edited_by_another_is_a_pending_revision_of_a_validated_one(role: int, pending: str | None) -> None:
    became = after(in_home(VALIDATED, pending=pending), event(Status.EDITED, role=role, label=NEW, position=5))
    assert (became.home, became.label, became.pending) == (VALIDATED, OLD, NEW)


@pytest.mark.parametrize(("role", "home"), [(OPERATOR, SEED), (VALIDATOR, VALIDATED)])
def test_edited_of_an_unknown_one_is_a_label_without_an_image(role: int, home: Home) -> None:
    became = after(None, event(Status.EDITED, role=role, label=NEW))
    assert (became.home, became.label, became.image, became.image_missing) == (home, NEW, None, True)


def test_an_image_that_comes_later_completes_what_an_edit_began() -> None:
    began = after(None, event(Status.EDITED, role=VALIDATOR, label=NEW, extension=""))
    became = after(began, event(Status.CREATED, position=2, label=OLD, extension="png"), staged(1))
    assert (became.home, became.label, became.pending) == (VALIDATED, NEW, OLD)
    assert (became.image, became.extension, became.image_missing) == (staged(1).sha256, "png", False)


@pytest.mark.parametrize("role", [OPERATOR, VALIDATOR])
def test_edited_of_a_deleted_one_replaces_its_label_and_revives_nothing(role: int) -> None:
    became = after(in_home(DELETED), event(Status.EDITED, role=role, label=NEW, position=5))
    assert (became.home, became.label) == (DELETED, NEW)


def test_an_edit_with_the_image_that_is_stored_is_no_conflict() -> None:
    assert after(in_home(SEED), event(Status.EDITED, label=NEW, position=5), staged(0)).image_conflict is False


def test_an_edit_with_another_image_keeps_the_stored_one_and_is_flagged() -> None:
    became = after(in_home(SEED), event(Status.EDITED, label=NEW, position=5), staged(1))
    assert (became.image, became.staged, became.image_conflict) == (staged(0).sha256, None, True)


# Validated and Deleted


def test_validated_moves_a_seed() -> None:
    became = validated(in_home(SEED)).row
    assert became is not None
    assert (became.home, became.label, became.position, became.dirty) == (VALIDATED, OLD, 9, 9)


def test_validated_puts_a_pending_revision_in_the_place_of_the_label() -> None:
    became = validated(in_home(VALIDATED, pending=PENDING)).row
    assert became is not None
    assert (became.home, became.label, became.pending) == (VALIDATED, PENDING, None)


def test_a_pending_revision_without_detections_counts_too() -> None:
    became = validated(in_home(VALIDATED, pending="")).row
    assert became is not None
    assert (became.label, became.pending) == ("", None)


def test_validated_again_changes_nothing() -> None:
    before = in_home(VALIDATED)
    change = validated(before)
    assert change.row is before
    assert (change.ignored, change.surprising) == ("validated already", False)


@pytest.mark.parametrize("home", [None, DELETED])
def test_validated_of_what_is_not_there_is_one_warning_and_nothing_else(home: Home | None) -> None:
    before = in_home(home)
    change = validated(before)
    assert change.row is before
    assert change.ignored is not None
    assert change.surprising is True


@pytest.mark.parametrize("home", [SEED, VALIDATED])
def test_deleted_moves_and_keeps_the_pending_text(home: Home) -> None:
    became = deleted(in_home(home, pending=PENDING if home is VALIDATED else None)).row
    assert became is not None
    assert (became.home, became.label) == (DELETED, OLD)
    assert became.pending == (PENDING if home is VALIDATED else None)


@pytest.mark.parametrize("home", [None, DELETED])
def test_deleted_of_what_is_gone_changes_nothing_and_warns_nobody(home: Home | None) -> None:
    before = in_home(home)
    change = deleted(before)
    assert change.row is before
    assert change.ignored is not None
    assert change.surprising is False


# Flags


@pytest.mark.parametrize(
    ("label", "word"),
    [("1 nan 0.5 0.1 0.1\n", "finite"), ("1 inf 0.5 0.1 0.1\n", "finite"), ("1 1.5 0.5 0.1 0.1\n", "0..1"), ("77 0.5 0.5 0.1 0.1\n", "77")],
)
def test_a_label_that_cannot_be_trained_on_is_stored_as_it_came_and_flagged(label: str, word: str) -> None:
    became = after(None, event(label=label), staged(0))
    assert became.label == label
    assert became.label_problem is not None
    assert word in became.label_problem


def test_a_flag_goes_with_the_label_that_it_was_about() -> None:
    flagged = after(None, event(label="77 0.5 0.5 0.1 0.1\n"), staged(0))
    assert after(flagged, event(Status.EDITED, position=2, label=NEW)).label_problem is None


def test_a_pending_revision_is_judged_when_it_becomes_the_label() -> None:
    bad = "77 0.5 0.5 0.1 0.1\n"
    pending = after(in_home(VALIDATED), event(Status.EDITED, position=5, label=bad))
    assert pending.label_problem is None
    became = validated(pending).row
    assert became is not None
    assert became.label_problem is not None


def test_a_validating_author_settles_an_image_conflict() -> None:
    conflict = after(in_home(VALIDATED), event(label=NEW, position=5), staged(1))
    assert after(conflict, event(Status.EDITED, role=VALIDATOR, position=6, label=NEW)).image_conflict is False


@pytest.mark.parametrize("home", [SEED, VALIDATED])
def test_a_label_drawn_on_the_stored_image_settles_an_image_conflict(home: Home) -> None:
    conflict = after(in_home(home), event(Status.EDITED, label=NEW, position=5), staged(1))
    assert conflict.image_conflict is True
    assert after(conflict, event(Status.CREATED, label=PENDING, position=6), staged(0)).image_conflict is False


def test_a_conflict_ends_when_the_annotation_is_drawn_anew_on_the_stored_image() -> None:
    conflict = after(in_home(VALIDATED), event(label=NEW, position=5), staged(1))
    gone = deleted(conflict, 6).row
    assert gone is not None
    assert after(gone, event(label=NEW, position=7), staged(0)).image_conflict is False


# Extensions


@pytest.mark.parametrize("home", [SEED, DELETED])
def test_an_image_of_another_extension_makes_the_old_one_stale(home: Home) -> None:
    became = after(in_home(home), event(extension="png", position=5), staged(1))
    assert (became.extension, became.stale_extensions) == ("png", "jpg/")


def test_the_same_bytes_under_another_extension_are_another_file() -> None:
    became = after(in_home(SEED), event(extension="png", position=5), staged(0, "5.image"))
    assert (became.extension, became.staged, became.stale_extensions) == ("png", "5.image", "jpg/")


def test_an_extension_that_comes_back_is_not_stale() -> None:
    first = after(in_home(SEED), event(extension="png", position=5), staged(1))
    second = after(first, event(extension="jpg", position=6), staged(2))
    assert (second.extension, second.stale_extensions) == ("jpg", "png/")


def test_an_extension_that_comes_back_is_not_mistaken_for_the_end_of_another() -> None:
    first = after(in_home(SEED, extension="jpeg"), event(extension="png", position=5), staged(1))
    second = after(first, event(extension="eg", position=6), staged(2))
    assert set(second.stale_extensions.strip("/").split("/")) == {"jpeg", "png"}


def test_several_extensions_in_one_batch_are_all_remembered() -> None:
    state = in_home(SEED)
    for position, extension in enumerate(("png", "bmp", "webp"), 5):
        state = after(state, event(extension=extension, position=position), staged(position))
    assert state is not None
    assert set(state.stale_extensions.strip("/").split("/")) == {"jpg", "png", "bmp"}


# Folding and bookkeeping


def test_folding_several_events_gives_the_last_state_with_the_staged_file() -> None:
    state = after(None, event(position=1, label=OLD), staged(1))
    state = after(state, event(Status.EDITED, position=2, label=NEW))
    change = validated(state, 3)
    assert change.row is not None
    assert (change.row.home, change.row.label, change.row.staged, change.row.dirty) == (VALIDATED, NEW, "1.image", 3)


def test_each_change_marks_the_row_with_its_position() -> None:
    became = after(in_home(SEED), event(Status.EDITED, position=17, label=NEW))
    assert (became.position, became.dirty, became.changed) == (17, 17, 100.0)


def test_first_seen_stays_and_changed_moves() -> None:
    first = apply(None, event(position=1), staged(0), now=1.0).row
    second = apply(first, event(Status.EDITED, position=2, label=NEW), now=2.0).row
    assert second is not None
    assert (second.first_seen, second.changed) == (1.0, 2.0)


def test_what_is_trained_on_changes_where_it_enters_alters_and_leaves() -> None:
    seed = after(None, event(position=1, label=OLD), staged(0))
    assert seed.validated_position is None
    entered = validated(seed, 2).row
    assert entered is not None
    assert entered.validated_position == 2
    revised = after(entered, event(Status.EDITED, position=3, label=NEW))
    assert revised.validated_position == 2, "a pending revision is not trained on"
    altered = validated(revised, 4).row
    assert altered is not None
    assert altered.validated_position == 4
    same = after(altered, event(Status.EDITED, role=VALIDATOR, position=5, label=NEW))
    assert same.validated_position == 4, "the same label again changes nothing"
    left = deleted(same, 6).row
    assert left is not None
    assert left.validated_position == 6
    edited = after(left, event(Status.EDITED, role=VALIDATOR, position=7, label=OLD))
    assert edited.validated_position == 6, "what is deleted is not trained on"


def test_a_new_image_of_a_validated_one_changes_what_is_trained_on() -> None:
    before = in_home(VALIDATED, validated_position=2)
    assert after(before, event(role=VALIDATOR, label=OLD, position=8), staged(1)).validated_position == 8


def test_deleting_a_seed_changes_nothing_that_is_trained_on() -> None:
    became = deleted(in_home(SEED)).row
    assert became is not None
    assert became.validated_position is None


def test_a_created_brings_its_origin_and_an_edit_does_not() -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    first = after(None, event(media="v.mp4", time_ticks=5, created=at, source=1, email="o@x.io"), staged(0))
    assert (first.media, first.time_ticks, first.created_at, first.source) == ("v.mp4", 5, at.timestamp(), 1)
    assert (first.creator_email, first.creator_role) == ("o@x.io", OPERATOR)
    edited = after(first, event(Status.EDITED, position=2, media="w.mp4", email="p@x.io", role=VALIDATOR, label=NEW))
    assert (edited.media, edited.creator_email, edited.creator_role) == ("v.mp4", "o@x.io", OPERATOR)


def test_a_created_that_knows_less_keeps_what_is_known() -> None:
    first = after(None, event(media="v.mp4", time_ticks=5, source=1), staged(0))
    second = after(first, event(position=2), staged(0))
    assert (second.media, second.time_ticks, second.source) == ("v.mp4", 5, 1)


def test_the_first_media_that_is_known_stays() -> None:
    """Another one may stand on another side of the split, and a model was trained on this image."""
    nowhere = after(None, event(), staged(0))
    first = after(nowhere, event(media="v.mp4", position=2), staged(0))
    assert first.media == "v.mp4"
    assert after(first, event(media="w.mp4", position=3, role=VALIDATOR), staged(0)).media == "v.mp4"
    gone = deleted(first).row
    assert after(gone, event(media="w.mp4", position=9), staged(1)).media == "v.mp4"


def test_a_media_that_was_lost_is_known_again_when_a_message_says_it() -> None:
    lost = row(Home.SEED, media=UNKNOWN_MEDIA)
    assert after(lost, event(), staged(0)).media == UNKNOWN_MEDIA
    assert after(lost, event(media="v.mp4"), staged(0)).media == "v.mp4"
