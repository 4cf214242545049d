"""What agents cost, from the summary of a generation to the status."""

from datetime import UTC, datetime

from tests.unit.operator import given

from dpe_api.artifacts import CategorySamples, EndpointSpending, GenerationSummary, Manifest, Tokens
from dpe_api.names import Stage
from dpe_api.status import Cost, EndpointCost, Resolved, Status
from dpe_operator.summaries import absorb


def test_the_status_says_what_each_endpoint_took_and_whose_budget_ended_the_stage():
    summary = GenerationSummary(
        target=10,
        candidates=8,
        kept=4,
        shortfall=6,
        rejected={"TooEasy": 4},
        categories=[
            CategorySamples(name="map", quota=10, candidates=8, kept=4, rejected={}, shortfall_reason="Budget")
        ],
        tokens=Tokens(prompt=900, completion=150),
        spending=[
            EndpointSpending(
                endpoint="teacher", calls=9, tokens=Tokens(prompt=800, completion=100), cost=1.25, budget_spent=True
            ),
            EndpointSpending(endpoint="judge", calls=3, tokens=Tokens(prompt=90, completion=10)),
        ],
    )
    manifest = Manifest(stage=Stage.GENERATION, created_at=datetime.now(UTC), summary=summary.wire())
    before = Status(
        cost=Cost(gpu_seconds=5.0, tokens=50),
        resolved=Resolved(round=0, model_uri="s3://dpe/models/base", spec=given.spec().resolve()),
    )
    status, line = absorb(before, Stage.GENERATION, manifest)
    assert status.cost == Cost(
        gpu_seconds=5.0,
        tokens=50 + 1050,
        endpoints=[
            EndpointCost(name="teacher", tokens=900, cost=1.25, budget_spent=True),
            EndpointCost(name="judge", tokens=100),
        ],
    )
    assert line == "kept 4 of 8 candidates, target 10, 6 short; spec.endpoints: the budget of teacher is used up"
