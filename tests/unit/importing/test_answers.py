from string import ascii_uppercase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpe_api.artifacts import AnswerType
from dpe_jobs.graders import grade
from dpe_jobs.importing.answers import (
    AnswerIs,
    check_choices,
    choose,
    infer,
    listed_choices,
    misfit,
    read_list,
)

KINDS = {
    "yes_no": ["yes", "No", "YES.", " no "],
    "number": ["3", "-2", "+0.5", "1,024", "12,345.5", "45%", ".5", "0", "0.10", "2015"],
    "maths": ["\\frac{1}{2}", "$x + 1$", "x^2 + 1", "2^{10}"],
    "exact": [
        "red",
        "007",
        "3 apples",
        "1,02",
        "12345678901234567890",
        "yes and no",
        "notable",
        "3/4 cup",
        "A",
        "$5",
        "*",
    ],
    "judge": ["a man walks his dog in a park in autumn"],
}


@pytest.mark.parametrize(("answer", "kind"), [(a, k) for k, answers in KINDS.items() for a in answers])
def test_the_kind_of_an_answer_is_told_by_its_looks(answer, kind):
    assert infer(answer, ()) == kind
    assert infer(answer, ("a", "b")) is AnswerType.CHOICE


@given(st.text(min_size=1, max_size=30).filter(str.strip))
def test_an_inferred_answer_is_graded_right_or_refused(answer):
    kind = infer(answer, ())
    if misfit(answer, kind, ()) is None and kind is not AnswerType.JUDGE:
        assert grade(answer, answer, kind)


choices = st.lists(st.text(min_size=1, max_size=6), min_size=2, max_size=6)


@given(choices, st.data())
def test_letter_index_and_text_name_the_same_choice(texts, data):
    try:
        check_choices(texts)
    except ValueError:
        return
    place = data.draw(st.integers(0, len(texts) - 1))
    wanted, letter = texts[place], ascii_uppercase[place]
    assert choose(letter, texts, AnswerIs.LETTER, letters_first=False) == wanted
    assert choose(f"({letter.lower()})", texts, AnswerIs.LETTER, letters_first=False) == wanted
    assert choose(place, texts, None, letters_first=False) == wanted
    assert choose(str(place), texts, AnswerIs.INDEX, letters_first=False) == wanted
    assert choose(wanted, texts, AnswerIs.TEXT, letters_first=False) == wanted
    assert choose(letter, texts, None, letters_first=True) == wanted


def test_a_letter_that_is_also_the_text_of_another_choice_is_refused():
    texts = ["B", "C", "A"]
    with pytest.raises(ValueError, match=r"'B' is the letter of one choice and the text of another: .*--answer-is"):
        choose("B", texts, None, letters_first=False)
    assert choose("B", texts, None, letters_first=True) == "C"
    assert choose("B", texts, AnswerIs.TEXT, letters_first=False) == "B"
    assert choose("A", ["A", "B"], None, letters_first=False) == "A"


@pytest.mark.parametrize(
    ("answer", "means", "said"),
    [
        (5, None, "index 5 is outside 0..1"),
        (-1, None, "index -1 is outside"),
        ("C", None, "'C' is none of the 2 choices"),
        ("red", AnswerIs.LETTER, "none of the 2 choices"),
        ("A", AnswerIs.TEXT, "none of the 2 choices"),
        ("one", AnswerIs.INDEX, "'one' is no index"),
    ],
)
def test_an_answer_that_names_no_choice_is_refused(answer, means, said):
    with pytest.raises(ValueError, match=said):
        choose(answer, ["red", "blue"], means, letters_first=False)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (["a", "b"], ["a", "b"]),
        ('["a", "b"]', ["a", "b"]),
        ("['a', 'b']", ["a", "b"]),
        ({"A": "x", "B": "y", "C": None}, ["x", "y"]),
        ("('a', 'b')", ["a", "b"]),
    ],
)
def test_lists_of_choices(value, found):
    assert read_list(value) == found


@pytest.mark.parametrize("value", ["a, b", "7", 7, {"B": "x", "A": "y"}, "__import__('os')", "[" * 10_000])
def test_what_is_no_list(value):
    with pytest.raises(ValueError, match=r"list|keys are not A"):
        read_list(value)


def test_choices_that_a_question_lists_are_found_when_its_answer_is_a_letter_of_theirs():
    question = "What is it?\nA. red\nB. blue\n(C) green\nAnswer with the option's letter."
    assert listed_choices(question, "B") == ("red", "blue", "green")
    assert listed_choices(question, "D") == ()
    assert listed_choices(question, "AB") == (), "two of them are no letter"
    assert listed_choices(question, "BC") == ()
    assert listed_choices(question, "blue") == ()
    assert listed_choices("What is it?\nA. red\nC. blue", "A") == ()
    assert listed_choices("A. is a letter", "A") == ()


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        ("maybe", AnswerType.YES_NO, "neither yes nor no"),
        ("2 or 3", AnswerType.NUMBER, "no single number"),
        ("Answer: red", AnswerType.EXACT, "would be graded wrong"),
    ],
)
def test_a_reference_that_its_grader_cannot_meet_is_told(answer, kind, said):
    assert said in str(misfit(answer, kind, ()))
