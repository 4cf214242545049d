import io
import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.memory import growth

from dpe_jobs.generation.dedup import NEAR, Seen, pixel_digest, thumbnail
from dpe_jobs.generation.render.shapes import COLORS, Shapes


def draw(seed: object, color: str = "teal", shape: str = "circle") -> Image.Image:
    return Shapes().draw({"color": color, "shape": shape}, random.Random(f"{seed}")).image


def saved(image: Image.Image, form: str, **options: object) -> Image.Image:
    out = io.BytesIO()
    image.save(out, form, **options)
    return Image.open(out)


def take(seen: Seen, number: int, question: str, picture: Image.Image) -> str | None:
    key = ("shape", number, question, pixel_digest(picture), thumbnail(picture))
    seen.add(*key)
    return seen.repeats(*key)


def test_same_drawing_in_another_colour_is_not_a_duplicate():
    seen = Seen()
    for number, color in enumerate(COLORS):
        assert take(seen, number, "what shape is present?", draw(1, color)) is None


def test_same_picture_may_be_asked_about_in_other_words_but_not_in_the_same():
    seen, picture = Seen(), draw(1)
    assert take(seen, 0, "what shape is present?", picture) is None
    assert take(seen, 1, "what color is the shape?", picture) is None
    assert take(seen, 2, "What  shape is present", picture) == "Duplicate"
    assert take(seen, 3, "what shape is present?", saved(picture, "JPEG", quality=95)) == "NearDuplicate"


def test_the_same_picture_is_not_asked_about_twice_in_nearly_the_same_words():
    seen, picture = Seen(), draw(1)
    words = "Look at the picture as a whole, and say which one of the three shapes it is that you can see in"
    assert take(seen, 0, f"{words} it.", picture) is None
    assert take(seen, 1, f"{words} there?", picture) == "NearDuplicate"
    assert take(seen, 2, f"{words} there?", draw(2)) is None


def test_a_sample_of_an_earlier_round_does_not_come_again():
    seen, picture = Seen(), draw(1)
    seen.add("shape", -1, "what shape is present?", pixel_digest(picture), thumbnail(picture))
    assert take(seen, 0, "what shape is present?", picture) == "Duplicate"
    assert take(seen, 1, "what color is the shape?", picture) is None


@given(st.permutations(range(12)))
def test_which_ones_repeat_does_not_depend_on_who_comes_first(order):
    seen = Seen()
    pictures = [saved(draw(n // 3), "JPEG", quality=95 - n % 3) for n in range(12)]
    keys = [("shape", n, "what shape is present?", pixel_digest(p), thumbnail(p)) for n, p in enumerate(pictures)]
    for number in order:
        seen.add(*keys[number])
    found = [seen.repeats(*key) for key in keys]
    assert [n for n, reason in enumerate(found) if reason is None] == [0, 3, 6, 9]


@given(
    st.lists(st.lists(st.integers(0, 12), min_size=4, max_size=4), max_size=30),
    st.lists(st.integers(0, 12), min_size=4, max_size=4),
)
def test_a_picture_is_near_exactly_those_that_a_full_search_finds(known, wanted):
    seen = Seen()
    for number, values in enumerate(known):
        seen.add("shape", number, "Which?", f"{number:02x}", np.array(values, dtype=np.int16))
    full = any(np.abs(np.array(values) - np.array(wanted)).mean() < NEAR for values in known)
    found = seen.repeats("shape", len(known), "Which?", "ff", np.array(wanted, dtype=np.int16))
    assert found == ("NearDuplicate" if full else None)


def test_the_same_picture_and_question_of_another_category_repeats_nothing():
    seen, key = Seen(), ("what shape is present?", pixel_digest(draw(1)), thumbnail(draw(1)))
    seen.add("shape", 0, *key)
    assert seen.repeats("shape_ref", 1, *key) is None
    assert seen.repeats("shape", 1, *key) == "Duplicate"


def test_memory_does_not_grow_with_the_candidates_that_are_remembered():
    rng, small = np.random.default_rng(0), thumbnail(draw(1))

    def remember(numbers: range) -> None:
        for number in numbers:
            asked = f"What is the {number}th shape?", f"{number:064x}", rng.integers(0, 256, small.shape, np.int16)
            seen.add("shape", number, *asked)
            assert seen.repeats("shape", number, *asked) is None

    with Seen() as seen:
        remember(range(3000))
        grown = growth(lambda: remember(range(3000, 8000)))
        assert seen.repeats("shape", 8000, "What is the 7th shape?", f"{7:064x}", small) == "Duplicate"
    assert grown < 5000 * 200, "bytes: less than the thumbnails, of 768 bytes each"
