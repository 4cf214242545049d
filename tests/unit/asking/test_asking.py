import io
import struct
from collections import Counter

import pytest
from PIL import Image

from dpe_api.artifacts import AnswerType
from dpe_jobs import asking
from dpe_jobs.training.data import as_prompt

CHOICE = AnswerType.CHOICE
COLORS = ("red", "dark red", "blue")


def picture(width: int, height: int, kind: str = "PNG", mode: str = "RGB", **how: object) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, kind, **how)
    return buffer.getvalue()


def test_options_are_listed_with_letters():
    assert asking.prompt("Which color?", COLORS, CHOICE) == "Which color?\nA. red\nB. dark red\nC. blue"


@pytest.mark.parametrize(
    "question",
    [
        "Which color?\nA. red\nB. dark red\nC. blue",
        "Which color? (A) red (B) dark red (C) blue",
        "Which color?\nOptions:\nA) Red\nB) Dark red\nC) Blue\nAnswer with the letter.",
        "选择颜色：A、red B、dark red C、blue",
    ],
)
def test_a_question_that_lists_its_options_is_sent_as_it_is(question):
    assert asking.prompt(question, COLORS, CHOICE) == question
    assert asking.order(question, COLORS, 0, "row") is None


@pytest.mark.parametrize(
    "question",
    ["Is it red, dark red or blue?", "Which?\nA. red\nB. dark red", "Which?\nA. blue\nB. dark red\nC. red", "a. b. c."],
)
def test_a_question_that_lists_them_otherwise_or_in_part_gets_the_list(question):
    assert asking.prompt(question, COLORS, CHOICE).startswith(f"{question}\nA. red\n")


@pytest.mark.parametrize(
    ("choices", "kind"), [((), CHOICE), (COLORS, AnswerType.EXACT), (("A", "B", "C"), CHOICE), ((), AnswerType.NUMBER)]
)
def test_other_questions_are_sent_as_they_are(choices, kind):
    assert asking.prompt("Which point is nearest?", choices, kind) == "Which point is nearest?"


def test_the_order_is_drawn_by_seed_and_row_and_favours_no_place():
    orders = [asking.order("Which?", COLORS, 0, f"row-{i}") for i in range(3000)]
    assert orders == [asking.order("Which?", COLORS, 0, f"row-{i}") for i in range(3000)]
    assert orders != [asking.order("Which?", COLORS, 1, f"row-{i}") for i in range(3000)]
    counts = Counter(orders)
    assert len(counts) == 6
    assert all(400 < n < 600 for n in counts.values())


@pytest.mark.parametrize(
    "choices",
    [
        ("red", "blue", "none of the above"),
        ("red", "blue", "Both A and B"),
        ("red", "blue", "all of these"),
        ("red",),
        ("A", "B", "C"),
        ("A", "B", "AB", "O"),  # blood types
    ],
)
def test_options_that_speak_of_others_or_are_letters_keep_their_places(choices):
    assert asking.order("Which?", choices, 0, "row") is None


def test_shuffled_options_are_listed_and_graded_in_the_same_order():
    order = (2, 0, 1)
    assert asking.prompt("Which?", COLORS, CHOICE, order=order) == "Which?\nA. blue\nB. red\nC. dark red"
    assert asking.graded_as("red", COLORS, CHOICE, order) == ("red", ("blue", "red", "dark red"))
    assert asking.graded_as("A", COLORS, CHOICE, order) == ("red", ("blue", "red", "dark red"))
    assert asking.graded_as("A", COLORS, CHOICE, None) == ("A", COLORS)
    assert asking.graded_as("3", (), AnswerType.NUMBER, None) == ("3", ())


def test_a_small_image_is_sent_byte_for_byte():
    data = picture(100, 100)
    assert asking.fit(data, 10_000) is data


@pytest.mark.parametrize(
    ("width", "height", "limit"),
    [(100, 100, 9_999), (2000, 1000, 1_003_520), (1, 5000, 784), (5000, 1, 784), (3000, 7, 784)],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_large_image_is_scaled_down_to_the_limit_in_its_proportions(width, height, limit, kind):
    with Image.open(io.BytesIO(asking.fit(picture(width, height, kind), limit))) as fitted:
        assert fitted.format == ("JPEG" if kind == "JPEG" else "PNG")
        assert fitted.width * fitted.height <= limit
        if min(width, height) > 50:
            assert fitted.width * fitted.height > 0.97 * limit
            assert abs(fitted.width / fitted.height - width / height) < 0.02 * width / height


def test_a_turned_photo_is_turned_before_its_note_of_that_is_lost():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = picture(200, 100, "JPEG", exif=exif)
    with Image.open(io.BytesIO(asking.fit(data, 5_000))) as fitted:
        assert fitted.width < fitted.height


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_turned_photo_whose_other_notes_are_botched_is_turned_once(kind):
    entries = struct.pack(">HHHIHH", 2, 0x0112, 3, 1, 6, 0)  # Orientation, SHORT
    entries += struct.pack(">HHII", 0x010F, 5, 1, 38)  # Make, a RATIONAL where a text belongs
    exif = b"Exif\0\0MM\0*" + struct.pack(">I", 8) + entries + bytes(4) + struct.pack(">II", 72, 1)
    with Image.open(io.BytesIO(asking.fit(picture(200, 100, kind, exif=exif), 5_000))) as fitted:
        assert fitted.width < fitted.height
        assert 0x0112 not in fitted.getexif()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "I;16"])
def test_every_mode_of_png_can_be_scaled(mode):
    with Image.open(io.BytesIO(asking.fit(picture(64, 64, mode=mode), 1024))) as fitted:
        assert fitted.size == (32, 32)


def test_an_image_that_does_not_decode_is_told():
    with pytest.raises(ValueError, match="does not decode"):
        asking.fit(b"no image", 1000)
    with pytest.raises(ValueError, match="does not decode"):
        asking.fit(picture(500, 500)[:200], 1000)


def test_diagnosis_the_filter_and_training_ask_the_same_text():
    row = {
        "id": "a",
        "image": {"bytes": picture(4, 4)},
        "question": "Which color?",
        "answer": "red",
        "answer_type": "choice",
        "choices": list(COLORS),
    }
    text = asking.prompt("Which color?", COLORS, CHOICE)
    assert as_prompt(row, 1000)["prompt"] == [{"role": "user", "content": text}]
