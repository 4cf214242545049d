import io
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dpe_jobs.generation.dedup import NEAR, NearIndex, Questions, Reserved, pixel_digest, thumbnail
from dpe_jobs.generation.render.shapes import COLORS, SHAPES, Shapes


def draw(seed: object, color: str = "teal", shape: str = "circle") -> Image.Image:
    return Shapes().draw({"color": color, "shape": shape}, random.Random(f"{seed}")).image


def saved(image: Image.Image, form: str, **options: object) -> Image.Image:
    out = io.BytesIO()
    image.save(out, form, **options)
    return Image.open(out)


@pytest.mark.parametrize(
    "change",
    [
        lambda i: saved(i, "JPEG", quality=90),
        lambda i: i.resize((32, 32), Image.Resampling.BICUBIC),
        lambda i: i.resize((128, 128), Image.Resampling.LANCZOS),
        lambda i: i.convert("RGBA"),
    ],
    ids=["jpeg", "smaller", "larger", "with alpha"],
)
def test_a_benchmark_picture_is_known_again_in_other_clothes(change):
    pictures = [draw(i) for i in range(30)]
    reserved = Reserved(pictures)
    for picture in pictures:
        other = change(picture)
        assert reserved.holds(pixel_digest(other), thumbnail(other))


def test_drawings_of_other_things_are_not_taken_for_the_same():
    rng = random.Random(0)
    things = [(rng.choice(list(COLORS)), rng.choice(SHAPES)) for _ in range(600)]
    reserved = Reserved(draw(i, *thing) for i, thing in enumerate(things[:300]))
    taken = [
        reserved.holds(pixel_digest(p), thumbnail(p)) for p in (draw(i + 300, *t) for i, t in enumerate(things[300:]))
    ]
    assert len(reserved) == 300
    assert sum(taken) <= 3


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
