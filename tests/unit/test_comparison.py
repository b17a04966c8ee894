"""What two models are compared on: only what neither has seen, and mostly the same from one job to the next."""

from hypothesis import given
from hypothesis import strategies as st

from azaion_daemon.training.comparison import BEYOND_MAXIMUM, Entry, TestImages

WHY = "seen"


def entry(name: str, *, unit: str = "", media: str = "", image: str | None = "", label: str = "l") -> Entry:
    digest = f"image of {name}" if image == "" else image
    return Entry(name, f"{name}.jpg", unit or f"name:{name}", media, digest, f"{digest or name} {label}")


def left(images: TestImages) -> list[str]:
    return [file.removesuffix(".jpg") for file in images.select(100).images]


def test_what_was_trained_on_is_known_by_its_name_its_media_and_its_image() -> None:
    images = TestImages(
        [entry("name"), entry("media", unit="media:v"), entry("twin", image="same"), entry("unread", image=None), entry("new")]
    )
    images.seen_in(
        [entry("name", image="another"), entry("frame", unit="media:v"), entry("other", image="same"), entry("x", image=None)], WHY
    )
    assert left(images) == ["new", "unread"]
    assert images.select(100).left_out == {WHY: 3}


def test_a_media_that_was_divided_by_name_leaks_only_into_the_whole_one() -> None:
    divided = TestImages([entry("a", media="media:v")])
    divided.seen_in([entry("b", media="media:v")], WHY)
    assert left(divided) == ["a"]
    divided.seen_in([entry("c", unit="media:v")], WHY)
    assert left(divided) == []
    whole = TestImages([entry("a", unit="media:v")])
    whole.seen_in([entry("b", media="media:v")], WHY)
    assert left(whole) == []


def test_what_is_left_out_is_counted_once_by_the_first_reason() -> None:
    images = TestImages([entry("a"), entry("b"), entry("c"), entry("d")])
    images.seen_in([entry("a")], "first")
    images.seen(lambda one: one.name in {"a", "b"}, "second")
    chosen = images.select(1)
    assert (len(chosen.images), chosen.left_out) == (1, {"first": 1, "second": 1, BEYOND_MAXIMUM: 1})


def test_nothing_to_compare_on_is_an_answer_too() -> None:
    chosen = TestImages([]).select(10)
    assert (chosen.images, chosen.left_out) == ((), {})


names = st.lists(st.text("abcdef", min_size=1, max_size=4), unique=True, max_size=30)


@given(names, st.integers(1, 10), st.randoms())
def test_the_choice_follows_from_the_images_alone(all_names: list[str], most: int, dice: object) -> None:
    entries = [entry(name) for name in all_names]
    chosen = TestImages(entries).select(most)
    assert TestImages(reversed(entries)).select(most) == chosen
    assert list(chosen.images) == sorted(chosen.images)
    renamed = TestImages([one._replace(name=f"z{one.name}", unit=f"name:z{one.name}") for one in entries]).select(most)
    assert (set(renamed.images), renamed.digest) == (set(chosen.images), chosen.digest)


@given(names, st.integers(1, 10))
def test_one_image_more_changes_the_choice_by_one_at_most(all_names: list[str], most: int) -> None:
    entries = [entry(name) for name in all_names]
    before, after = TestImages(entries).select(most), TestImages([*entries, entry("new")]).select(most)
    assert len(set(before.images) - set(after.images)) <= 1


def test_a_corrected_label_is_another_content_of_the_same_choice() -> None:
    before, after = (TestImages([entry("a", label=label), entry("b"), entry("c")]).select(2) for label in ("l", "corrected"))
    assert before.images == after.images
    assert (before.digest != after.digest) == ("a.jpg" in before.images)
