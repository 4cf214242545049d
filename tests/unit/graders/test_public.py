import pytest
from tests.unit.graders.public import CASES, DIFFERENCES

from dpe_api.artifacts import AnswerType
from dpe_jobs.graders import grade


@pytest.mark.parametrize("place", range(len(CASES)))
def test_the_cases_of_math_verify_are_graded_as_there_but_for_the_explained_ones(place):
    case = CASES[place]
    agrees = grade(case["pred"], case["gold"], AnswerType.MATHS) is case["expected"]
    assert agrees is (place not in DIFFERENCES), DIFFERENCES.get(place, "a difference that nobody explained")
