import random

import pytest
from examples.shapes import data, truth


def test_pictures_answer_easy_vqas_own_questions_as_easy_vqa_does() -> None:
    rows = random.Random(0).sample(data.rows(data.Part.TEST), 400)
    wrong = [r for r in rows if truth.answer(r.question, *truth.see(r.image.read_bytes())) != r.answer]
    assert wrong == []


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("what is the color of the circle?", "teal"),
        ("what is the teal shape?", "circle"),
        ("is there a teal shape?", "yes"),
        ("is there a green shape?", "no"),
        ("is there not a green shape?", "yes"),
        ("is no circle present?", "no"),
        ("does the image contain a triangle?", "no"),
    ],
)
def test_a_question_about_a_teal_circle(question: str, expected: str) -> None:
    assert truth.answer(question, "circle", "teal") == expected
