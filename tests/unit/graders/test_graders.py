import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpe_api.artifacts import AnswerType
from dpe_jobs.graders import final_answer, grade, normalise, parse_number

EXACT, CHOICE, NUMBER = AnswerType.EXACT, AnswerType.CHOICE, AnswerType.NUMBER
YES_NO, MATHS = AnswerType.YES_NO, AnswerType.MATHS
COLORS = ("red", "dark red", "blue")

TABLE = [
    # exact
    (EXACT, "teal", " teal", True),
    (EXACT, "teal", "Teal.", True),
    (EXACT, "teal", "TEAL\n", True),
    (EXACT, "teal", "**teal**", True),
    (EXACT, "teal", '"teal"', True),
    (EXACT, "teal", "The answer is teal.", True),
    (EXACT, "teal", "Answer: teal", True),
    (EXACT, "teal", "I look at the shape.\nFinal answer: teal", True),
    (EXACT, "teal", "The colour is clear. So, the answer is teal.", True),
    (EXACT, "teal", "<think>green?</think><answer>teal</answer>", True),
    (EXACT, "teal", "\\boxed{teal}", True),
    (EXACT, "teal", "Thus \\boxed{\\text{x}} no, \\boxed{teal}", True),
    (EXACT, "teal", "green", False),
    (EXACT, "teal", "teal green", False),
    (EXACT, "teal", "tealish", False),
    (EXACT, "teal", "", False),
    (EXACT, "dark  red", "dark red", True),
    (EXACT, "café", "CAFE\u0301", True),
    # yes or no
    (YES_NO, "yes", "Yes", True),
    (YES_NO, "yes", "yes, there is a circle", True),
    (YES_NO, "yes", "Yes! It is not hard to see.", True),
    (YES_NO, "yes", "True", True),
    (YES_NO, "yes", "Answer: Yes", True),
    (YES_NO, "no", "no", True),
    (YES_NO, "no", "No.", True),
    (YES_NO, "no", "No, yes would be wrong", True),
    (YES_NO, "no", "There is no circle", True),
    (YES_NO, "no", "The answer is no", True),
    (YES_NO, "no", "note", False),
    (YES_NO, "no", "note: unclear", False),
    (YES_NO, "no", "not sure", False),
    (YES_NO, "no", "none", False),
    (YES_NO, "no", "nothing", False),
    (YES_NO, "no", "I cannot know", False),
    (YES_NO, "no", "yes and no", False),
    (YES_NO, "yes", "yes and no", False),
    (YES_NO, "yes", "yes/no", False),
    (YES_NO, "yes", "no", False),
    (YES_NO, "yes", "yesterday", False),
    (YES_NO, "yes", "eyes", False),
    (YES_NO, "yes", "", False),
    # choice
    (CHOICE, "B", "B", True),
    (CHOICE, "B", "b", True),
    (CHOICE, "B", "(B)", True),
    (CHOICE, "B", "B.", True),
    (CHOICE, "B", "B) dark red", True),
    (CHOICE, "B", "B: dark red", True),
    (CHOICE, "B", "The correct option is B", True),
    (CHOICE, "B", "dark red", True),
    (CHOICE, "dark red", "B", True),
    (CHOICE, "dark red", "It is dark red.", True),
    (CHOICE, "red", "It is dark red.", False),
    (CHOICE, "red", "red or blue", False),
    (CHOICE, "red", "a red one", True),
    (CHOICE, "A", "a blue one", False),
    (CHOICE, "red", "D", False),
    (CHOICE, "red", "reddish", False),
    (CHOICE, "red", "", False),
    # number
    (NUMBER, "3", "3", True),
    (NUMBER, "3", "3.0", True),
    (NUMBER, "3", " three ", True),
    (NUMBER, "3", "There are 3 squares.", True),
    (NUMBER, "3", "Answer: 3.", True),
    (NUMBER, "3", "I count 2 red and 1 blue.\nAnswer: 3", True),
    (NUMBER, "3", "2 or 3", False),
    (NUMBER, "3", "13", False),
    (NUMBER, "3", "-3", False),
    (NUMBER, "1234", "1,234", True),
    (NUMBER, "1234.5", "$1,234.50", True),
    (NUMBER, "0.5", ".5", True),
    (NUMBER, "0.5", "1/2", True),
    (NUMBER, "50", "50%", True),
    (NUMBER, "1e-3", "0.001", True),
    (NUMBER, "-2", "−2", True),
    (NUMBER, "100", "100.005", True),
    (NUMBER, "100", "100.1", False),
    (NUMBER, "3", "none", False),
    (NUMBER, "3", "", False),
    # maths
    (MATHS, "1/2", "0.5", True),
    (MATHS, "\\frac{1}{2}", "The answer is $\\frac{2}{4}$.", True),
    (MATHS, "x^2+2x+1", "\\boxed{(x+1)^2}", True),
    (MATHS, "$2\\pi$", "$6.28$", False),
    (MATHS, "42", "so we get $42$", True),
    (MATHS, "42", "41", False),
    (MATHS, "42", "", False),
]


@pytest.mark.parametrize(("kind", "answer", "response", "right"), TABLE)
def test_responses_as_models_write_them(kind, answer, response, right):
    choices = COLORS if kind is CHOICE else ()
    assert grade(response, answer, kind, choices) is right


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
