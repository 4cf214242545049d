"""What is said before anything runs, because it would fail hours later."""

from typing import Any

import pytest
from tests.unit.operator import given

from dpe_api.names import Stage
from dpe_api.spec import ResolvedSpec, Spec
from dpe_api.status import Resolved, ReviewStatus, Status
from dpe_operator.observe import _shards
from dpe_operator.resolve import problems

SHAPES = {"kind": "render", "program": "shapes"}
POOL = {"kind": "pool", "uri": "s3://dpe/data/pool"}
RECOLOUR = {"kind": "edit", "program": "recolour"}
MODEL_EDIT = {"kind": "edit", "endpoint": "e"}


def said(**changes: Any) -> list[str]:
    return [p.reason for p in problems(given.spec(**changes), None, given.platform())]


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({}, []),
        ({"diagnosis": {"maxTokens": 8192}}, ["AnswersTooLong"]),
        ({"diagnosis": {"maxTokens": 8192}, "serving": {"maxModelLen": 16384}}, []),
        ({"diagnosis": {"maxTokens": 32768}, "serving": {"maxModelLen": 65536}}, ["AnswersTooLong"]),
    ],
)
def test_answers_must_leave_room_for_a_question(changes, reasons):
    assert said(**changes) == reasons


@pytest.mark.parametrize(
    ("sources", "reasons"),
    [
        ([SHAPES, RECOLOUR], []),
        ([RECOLOUR], ["NothingToEdit"]),
        ([RECOLOUR, POOL], ["NothingToEdit"]),
        ([RECOLOUR, POOL | {"program": "shapes"}], []),
        ([RECOLOUR, RECOLOUR], ["NothingToEdit", "NothingToEdit"]),
        ([MODEL_EDIT, SHAPES], []),
        ([MODEL_EDIT, POOL], []),
        ([MODEL_EDIT, {"kind": "search", "provider": "wikimedia"}], []),
        ([MODEL_EDIT, POOL | {"program": "shapes"}], ["NothingToEdit"]),
    ],
)
def test_an_edit_needs_a_source_of_what_it_edits(sources, reasons):
    agents = {name: {"endpoint": "e"} for name in ("selector", "writer", "validator")}
    endpoints = [{"name": "e", "url": "https://e.example.org/v1", "model": "m"}]
    generation = {"targetSamples": 4, "maxCandidates": 8, "sources": sources, **agents}
    assert said(generation=generation, endpoints=endpoints) == reasons


def test_a_seed_that_is_left_out_is_that_of_the_iteration_before():
    """Another seed draws the rows in another order: some of them would be asked again."""
    first = ResolvedSpec.of(given.spec(seed=7))
    later = Spec.model_validate({"model": {"iterationRef": {"name": "shapes-1"}}})
    assert later.resolve(first).seed == 7
    assert Spec.model_validate({**later.wire(), "seed": 9}).resolve(first).seed == 9
    assert ResolvedSpec.of(given.spec()).seed == 0


def test_one_pod_alone_tells_how_far_the_review_of_many_shards_is():
    spec = given.spec(generation={"targetSamples": 40, "maxCandidates": 80, "shards": 8, "review": "required"})
    resolved = Resolved(round=0, model_uri="s3://dpe/models/base", spec=spec.resolve())
    making = Status(resolved=resolved)
    assert _shards(making, Stage.GENERATION) == 8
    applying = making.model_copy(update={"review": ReviewStatus(samples="40 samples", draft="s3://dpe/draft")})
    assert _shards(applying, Stage.GENERATION) == 1
