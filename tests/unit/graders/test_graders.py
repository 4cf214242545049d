import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpe_api.artifacts import AnswerType
from dpe_jobs.graders import final_answer, grade, normalise, parse_number

EXACT, CHOICE, NUMBER = AnswerType.EXACT, AnswerType.CHOICE, AnswerType.NUMBER
YES_NO, MATHS = AnswerType.YES_NO, AnswerType.MATHS
COLORS = ("red", "dark red", "blue")


@pytest.mark.parametrize(
    ("kind", "answer", "choices"), [(YES_NO, "maybe", ()), (NUMBER, "many", ()), (CHOICE, "green", COLORS)]
)
def test_a_reference_answer_that_does_not_fit_its_type_is_an_error(kind, answer, choices):
    with pytest.raises(ValueError, match=answer):
        grade("x", answer, kind, choices)


def test_choice_without_choices_is_exact():
    assert grade("Red.", "red", CHOICE)
    assert not grade("A", "red", CHOICE)


@given(st.text(max_size=200))
def test_no_text_of_a_model_breaks_a_grader(text):
    for kind, answer, choices in [(EXACT, "a", ()), (YES_NO, "no", ()), (NUMBER, "3", ()), (CHOICE, "red", COLORS)]:
        assert grade(text, answer, kind, choices) in (True, False)


@given(st.text(max_size=50))
def test_normalising_twice_changes_nothing(text):
    assert normalise(normalise(text)) == normalise(text)


@given(st.integers(-(10**9), 10**9))
def test_every_whole_number_is_read_back(number):
    assert parse_number(f"it is {number:,}") == number
    assert grade(str(number), f"{number:,}", NUMBER)


def test_unclosed_box_is_the_whole_text():
    assert final_answer("\\boxed{red") == "\\boxed{red"
