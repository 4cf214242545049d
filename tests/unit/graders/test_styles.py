import pytest
from tests.unit.graders import styles

from dpe_api.artifacts import AnswerType
from dpe_jobs.graders import check, claim, grade

TABLES = {
    AnswerType.EXACT: styles.EXACT,
    AnswerType.NUMBER: styles.NUMBER,
    AnswerType.YES_NO: styles.YES_NO,
    AnswerType.MATHS: styles.MATHS,
    AnswerType.LIST: styles.LIST,
}
ROWS = [(kind, (), *row) for kind, table in TABLES.items() for row in table] + [
    (AnswerType.CHOICE, *row) for row in styles.CHOICE
]
ROWS += styles.FRESH


@pytest.mark.parametrize(("kind", "choices", "answer", "response", "right"), ROWS)
def test_responses_as_models_write_them(kind, choices, answer, response, right):
    assert grade(response, answer, kind, choices) is right


@pytest.mark.parametrize(
    ("kind", "choices", "answer"), sorted({(kind, choices, answer) for kind, choices, answer, *_ in ROWS})
)
def test_every_reference_of_the_tables_is_right_by_itself(kind, choices, answer):
    check(answer, kind, choices)


@pytest.mark.parametrize(
    ("kind", "choices", "response", "said"),
    [
        (AnswerType.EXACT, (), "The color of the shape is **Teal**.", "teal"),
        (AnswerType.EXACT, (), "I'm sorry, I can't tell.", None),
        (AnswerType.EXACT, (), "", None),
        (AnswerType.CHOICE, styles.COLORS, "(B)", "dark red"),
        (AnswerType.CHOICE, styles.COLORS, "It is dark red.", "dark red"),
        (AnswerType.CHOICE, styles.COLORS, "A or B", None),
        (AnswerType.CHOICE, (), "Red.", "red"),
        (AnswerType.NUMBER, (), "There are 1,234 of them.", "1234"),
        (AnswerType.NUMBER, (), "12 centimeters", "12 cm"),
        (AnswerType.NUMBER, (), "$12\\,\\text{cm}$", "12 cm"),
        (AnswerType.NUMBER, (), "40 percent", "40 %"),
        (AnswerType.NUMBER, (), "5 apples", "5"),
        (AnswerType.NUMBER, (), "120K", "120000"),
        (AnswerType.NUMBER, (), "2 or 3", None),
        (AnswerType.YES_NO, (), "Yes, there is.", "yes"),
        (AnswerType.YES_NO, (), "There is no circle.", "no"),
        (AnswerType.YES_NO, (), "Note that ...", None),
        (AnswerType.MATHS, (), "\\boxed{x+1}", "x+1"),
        (AnswerType.LIST, (), "The colors are red and blue.", "blue, red"),
        (AnswerType.JUDGE, (), "A long story.", "long story"),
    ],
)
def test_claims_have_one_form_for_equal_answers(kind, choices, response, said):
    assert claim(response, kind, choices) == said
