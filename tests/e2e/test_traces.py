"""A whole turn with a collector of traces: one trace, from the resource to vLLM's own spans."""

from collections import Counter

import pytest
from dev.cluster import object_store
from dev.cluster.config import Cluster

from dpe_api.names import BATCH_STAGES, Stage
from dpe_api.trace import attempt_span_id, root_span_id, trace_id
from tests.e2e.conftest import Turn
from tests.e2e.world import World
from tests.fakes.otlp import Collector, Sent

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3000)]


@pytest.fixture(scope="module")
def uid(first_turn: Turn, world: World) -> str:
    found: str = world.get(first_turn.name)["metadata"]["uid"]
    return found


@pytest.fixture(scope="module")
def spans(uid: str, collector: Collector) -> list[Sent]:
    """Of the first turn."""
    collector.wait_for("DPEIteration")
    return [span for span in collector.spans if span.trace == trace_id(uid)]


def test_every_attempt_is_below_the_resource_and_every_request_below_its_attempt(spans: list[Sent], uid: str) -> None:
    root, *more = [span for span in spans if span.name == "DPEIteration"]
    assert not more
    assert root.id == root_span_id(uid)
    by_id = {span.id: span for span in spans}
    for stage in Stage:
        attempt = by_id[attempt_span_id(uid, stage, 1)]
        assert (attempt.name, attempt.parent, attempt.service["service.name"]) == (stage, root.id, "dpe-operator")
    for span in spans:
        above = span
        while above.parent and str(above.service["service.name"]).startswith("dpe-"):
            above = by_id[above.parent]
        assert above is root or not str(above.service["service.name"]).startswith("dpe-")


def test_requests_of_each_stage_are_there(spans: list[Sent], first_turn: Turn) -> None:
    told = Counter((span.service["service.name"], span.name) for span in spans)
    for stage in (Stage.DIAGNOSIS, Stage.GENERATION, Stage.EVALUATION):
        assert told[f"dpe-{stage}", "chat model"] > 50, told
    for stage in BATCH_STAGES:
        assert told[f"dpe-{stage}", "object store PUT"] > 0, told
    ranks = {name for service, name in told if service == "dpe-training" and name.startswith("rank ")}
    assert ranks == {"rank 0", "rank 1"}
    tokens = sum(int(span.about.get("gen_ai.usage.output_tokens", 0)) for span in spans if span.name == "chat model")
    assert 0 < tokens <= first_turn.status.cost.tokens


def test_vllms_own_spans_are_below_the_requests_that_asked(spans: list[Sent]) -> None:
    asked = {span.id for span in spans if span.name == "chat model"}
    served = [span for span in spans if span.name == "llm_request"]
    assert len(served) > 50
    assert {span.parent for span in served} <= asked
    assert all("gen_ai.latency.time_to_first_token" in span.about for span in served)


def test_the_stores_secret_key_is_in_no_span(spans: list[Sent], collector: Collector, cluster: Cluster) -> None:
    assert spans
    assert object_store.credentials(cluster).secret_key.encode() not in collector.raw
