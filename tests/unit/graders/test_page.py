import re
from pathlib import Path

import pytest
from tests.unit.graders import styles
from tests.unit.graders.test_styles import ROWS

from dpe_api.artifacts import AnswerType
from dpe_jobs.graders import grade, is_programmatic

PAGE = (Path(__file__).parents[3] / "docs" / "grading.md").read_text()
SECTIONS = {s.split("\n", 1)[0]: s for s in PAGE.split("\n## ")}
EXAMPLES = [
    (AnswerType(kind), *row)
    for kind, section in SECTIONS.items()
    if kind in set(AnswerType)
    for row in re.findall(r"^\| `(.+?)` \| `(.+?)` \| (right|wrong) \|$", section, re.MULTILINE)
]


def test_the_page_has_a_section_with_examples_of_every_kind():
    assert set(AnswerType) <= SECTIONS.keys()
    assert {kind for kind, *_ in EXAMPLES} == {kind for kind in AnswerType if is_programmatic(kind)}


@pytest.mark.parametrize(("kind", "answer", "response", "right"), EXAMPLES)
def test_the_examples_of_the_page_are_rows_of_the_tests(kind, answer, response, right):
    choices = styles.COLORS if kind is AnswerType.CHOICE else ()
    assert (kind, choices, answer, response, right == "right") in ROWS
    assert grade(response, answer, kind, choices) is (right == "right")


def test_the_page_says_how_many_rows_there_are():
    assert f"{len(ROWS)} of them" in PAGE
    assert f"{len(styles.FRESH)} of the rows" in PAGE
