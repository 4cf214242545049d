import io
import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dpe_jobs.generation.dedup import NEAR, NearIndex, Questions, pixel_digest, thumbnail
from dpe_jobs.generation.render.shapes import COLORS, Shapes


def draw(seed: object, color: str = "teal", shape: str = "circle") -> Image.Image:
    return Shapes().draw({"color": color, "shape": shape}, random.Random(f"{seed}")).image


def saved(image: Image.Image, form: str, **options: object) -> Image.Image:
    out = io.BytesIO()
    image.save(out, form, **options)
    return Image.open(out)


def take(questions: Questions, number: int, question: str, picture: Image.Image) -> str | None:
    key = (question, pixel_digest(picture), thumbnail(picture))
    questions.add(number, *key)
    return questions.repeats(number, *key)


def test_same_drawing_in_another_colour_is_not_a_duplicate():
    questions = Questions()
    for number, color in enumerate(COLORS):
        assert take(questions, number, "what shape is present?", draw(1, color)) is None


def test_same_picture_may_be_asked_about_in_other_words_but_not_in_the_same():
    questions, picture = Questions(), draw(1)
    assert take(questions, 0, "what shape is present?", picture) is None
    assert take(questions, 1, "what color is the shape?", picture) is None
    assert take(questions, 2, "What  shape is present", picture) == "Duplicate"
    assert take(questions, 3, "what shape is present?", saved(picture, "JPEG", quality=95)) == "NearDuplicate"


def test_the_same_picture_is_not_asked_about_twice_in_nearly_the_same_words():
    questions, picture = Questions(), draw(1)
    words = "Look at the picture as a whole, and say which one of the three shapes it is that you can see in"
    assert take(questions, 0, f"{words} it.", picture) is None
    assert take(questions, 1, f"{words} there?", picture) == "NearDuplicate"
    assert take(questions, 2, f"{words} there?", draw(2)) is None


def test_a_sample_of_an_earlier_round_does_not_come_again():
    questions, picture = Questions(), draw(1)
    questions.add(-1, "what shape is present?", pixel_digest(picture), thumbnail(picture))
    assert take(questions, 0, "what shape is present?", picture) == "Duplicate"
    assert take(questions, 1, "what color is the shape?", picture) is None


@given(st.permutations(range(12)))
def test_which_ones_repeat_does_not_depend_on_who_comes_first(order):
    questions = Questions()
    pictures = [saved(draw(n // 3), "JPEG", quality=95 - n % 3) for n in range(12)]
    keys = [("what shape is present?", pixel_digest(p), thumbnail(p)) for p in pictures]
    for number in order:
        questions.add(number, *keys[number])
    found = [questions.repeats(number, *keys[number]) for number in range(12)]
    assert [n for n, reason in enumerate(found) if reason is None] == [0, 3, 6, 9]


@given(
    st.lists(st.lists(st.integers(0, 12), min_size=4, max_size=4), max_size=30),
    st.lists(st.integers(0, 12), min_size=4, max_size=4),
)
def test_bins_find_exactly_what_a_full_search_finds(known, wanted):
    index = NearIndex()
    for values in known:
        index.add(np.array(values, dtype=np.int16))
    full = any(np.abs(np.array(values) - np.array(wanted)).mean() < NEAR for values in known)
    assert (np.array(wanted, dtype=np.int16) in index) == full
