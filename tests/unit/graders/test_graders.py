import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpe_api.artifacts import AnswerType
from dpe_jobs.graders import check, claim, final_answer, grade, normalise, parse_number

EXACT, CHOICE, NUMBER = AnswerType.EXACT, AnswerType.CHOICE, AnswerType.NUMBER
YES_NO, MATHS, LIST = AnswerType.YES_NO, AnswerType.MATHS, AnswerType.LIST
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


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("Yes, the room is empty. There is no furniture in it.", "yes"),
        ("Yes, the light is off. There are no lit bulbs.", "yes"),
        ("No. The sign is correct but the arrow is not.", "no"),
        ("The cup is empty. There is no tea.", "no"),
    ],
)
def test_what_explains_a_plain_yes_or_no_does_not_take_it_back(response, answer):
    assert grade(response, answer, YES_NO)
    assert not grade(response, "no" if answer == "yes" else "yes", YES_NO)


def test_two_sentences_that_begin_with_yes_and_with_no_claim_nothing():
    assert not grade("Yes. No.", "yes", YES_NO)
    assert not grade("Yes. No.", "no", YES_NO)


@pytest.mark.parametrize(
    "response",
    [
        "Yes, there is a car, but it is blue. Therefore, no.",
        "No obstacles are visible on the left. On the right there is one. So yes.",
        "No wait. So yes.",
        "Correct me if I am wrong. So no.",
    ],
)
def test_a_conclusion_that_takes_the_beginning_back_claims_nothing(response):
    assert not grade(response, "yes", YES_NO)
    assert not grade(response, "no", YES_NO)


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("Yes, the bowl is empty. So no fruit is in it.", "yes"),
        ("Yes, I think no one is in the room.", "yes"),
        ("There is no lamp on the left. So yes.", "yes"),
        ("So, no lamp is lit.", "no"),
    ],
)
def test_a_conclusion_about_no_lamp_is_a_no_only_where_nothing_is_said_outright(response, answer):
    assert grade(response, answer, YES_NO)


@pytest.mark.parametrize("choices", [("Yes", "No"), ("no", "yes"), ("True", "False")])
def test_options_that_are_yes_and_no_are_read_as_yes_and_no(choices):
    yes = choices[1] if choices[0] == "no" else choices[0]
    no = next(c for c in choices if c != yes)
    assert grade("Yes, there is no doubt.", yes, CHOICE, choices)
    assert grade("No, the statement is not true.", no, CHOICE, choices)
    assert not grade("Yes or no, who knows.", yes, CHOICE, choices)


@pytest.mark.parametrize(
    ("choices", "response", "answer"),
    [
        (("Yes", "No"), "The image shows no lamp, so option (A)", "Yes"),
        (("Yes", "No"), "There is no lamp in the picture. Therefore, option A fits.", "Yes"),
        (("Yes", "No"), "There are no dogs in it: option A.", "Yes"),
        (("True", "False"), "No cats are in the image, so the statement is true.", "True"),
        (("True", "False"), "There is no error, so the statement is true.", "True"),
        (("False", "True"), "There is no cat here, which makes (B) the better option.", "True"),
        (("Yes", "No"), "There is no lamp in the picture.", "No"),
        (("True", "False"), "There is no lamp in the picture.", "False"),
    ],
)
def test_what_a_picture_has_not_outranks_no_option_that_is_named(choices, response, answer):
    assert grade(response, answer, CHOICE, choices)


@pytest.mark.parametrize(
    ("choices", "response", "answer"),
    [
        (("Yes", "No"), "Yes, the point (B) lies on the line.", "Yes"),
        (("Yes", "No"), "Yes, the bowl is empty. So there is no fruit in it.", "Yes"),
        (("Yes", "No"), "Correct, there is no lamp.", "Yes"),
        (("True", "False"), "No, that would be true only of the other one.", "False"),
    ],
)
def test_an_outright_yes_or_no_outranks_what_is_named_after_it(choices, response, answer):
    assert grade(response, answer, CHOICE, choices)


def test_more_options_than_letters_are_refused_with_what_to_do():
    breeds = [f"breed {n}" for n in range(37)]
    with pytest.raises(ValueError, match=r"37 choices, but only 26 have a letter.*answer_type exact"):
        check("breed 30", CHOICE, breeds)
    check("breed 25", CHOICE, breeds[:26])


@pytest.mark.parametrize(
    ("response", "answer", "right"),
    [
        ("100, 200, 300", "100,200,300", True),
        ("100,200,300", "100, 200, 300", True),
        ("[100,200,300]", "100,200,300", True),
        ("The corner is 120,340.", "120, 340", True),
        ("120,340", "ordered: 340, 120", False),
        ("1000", "1,000", True),
        ("100, 200", "100,200,300", False),
        ("1 and 200", "1,200", False),
        ("1, 3, 200, 400", "1,200; 3,400", False),
        ("1200 and 3400", "1,200; 3,400", True),
        ("50, 100, 150", "50,100,150", True),
        ("1, 200", "(1,200)", True),
        ("50,100", "50, 100", True),
    ],
)
def test_numbers_of_three_digits_without_spaces_are_a_list_or_one_number(response, answer, right):
    assert grade(response, answer, LIST) is right


@pytest.mark.parametrize(
    ("response", "other"), [("1,200", "1200"), ("The sums are 1,200 and 3,400", "The sums are 3400 and 1200")]
)
def test_equal_lists_are_one_claim_however_their_thousands_are_written(response, other):
    assert claim(response, LIST) == claim(other, LIST)


@pytest.mark.parametrize(
    ("response", "answer", "right"),
    [
        ("50 percent", "0.5%", False),
        ("100 percent", "1%", False),
        ("1%", "100 percent", False),
        ("50 percent", "50%", True),
        ("0.5", "50 percent", True),
    ],
)
def test_a_percentage_is_not_taken_for_a_share_once_more(response, answer, right):
    assert grade(response, answer, NUMBER) is right
