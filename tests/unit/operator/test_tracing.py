"""The trace of an iteration: its id is the resource's uid, and pods find their attempt's span without asking."""

import time
from dataclasses import dataclass, field, replace

import pytest
from tests.fakes import otlp
from tests.fakes.otlp import Collector, collecting
from tests.unit.operator import given
from tests.unit.operator.sim import World
from typing_extensions import override

from dpe_api.names import BATCH_STAGES, Stage, child_name
from dpe_api.status import Phase, Status
from dpe_api.trace import attempt_span_id, root_span_id, trace_id, traceparent
from dpe_operator import tracing
from dpe_operator.plan import Note, Plan
from dpe_operator.tracing import Tracer
from dpe_operator.world import PodSeen

UID = "8f14e45f-ceea-467f-9f6c-2a3b1c0d9e8f"
ITERATION = replace(given.ITERATION, uid=UID, created=given.T0)


@pytest.fixture
def collector():
    with collecting() as found:
        yield found


@dataclass
class Traced(World):
    """A world whose operator traces."""

    tracer: Tracer = field(default_factory=tracing.Off)
    said: tuple[Note, ...] = ()

    @override
    def apply(self, plan: Plan, version: int | None = None, die_after: int | None = None) -> None:
        self.said = plan.notes
        super().apply(plan, version, die_after)

    @override
    def _write(self, status: Status | None, version: int) -> None:
        before, seen = self.status, self.look(self.status)
        super()._write(status, version)
        self.tracer.tell(before, self.status, seen, self.said, self.now)

    def until_pods_of(self, stage: Stage, attempt: int = 1) -> list[PodSeen]:
        """Go on until they run; all stages before publish."""
        for _ in range(100):
            self.turn()
            self.control()
            pods = self.pods_of(job) if (job := self.jobs.get(child_name("shapes-1", stage, attempt))) else []
            if pods and all(pod.started_at is not None for pod in pods):
                return pods
            self.run_pods()
            if not self.status.stage_status(stage).attempt:
                self.finish_work()
            self.control()
            self.pass_time(6)
        raise AssertionError(f"no pod of {stage} {attempt}")


def world(tracer: Tracer) -> Traced:
    return Traced(given.spec(), given.platform(), ITERATION, tracer=tracer)


def test_an_iteration_is_one_trace_with_a_span_for_each_attempt(collector: Collector):
    own = world(tracing.tracer(collector.url))
    own.behave()
    assert own.status.phase is Phase.SUCCEEDED
    own.tracer.close()
    (root,) = collector.named("DPEIteration")
    assert (root.trace, root.id, root.parent) == (UID.replace("-", ""), root_span_id(UID), "")
    assert root.began == given.T0.timestamp()
    assert root.ended == own.status.completion_time.timestamp()
    assert root.about["dpe.iteration"] == "shapes-1"
    assert root.status == otlp.OK
    below = [span for span in collector.spans if span is not root and span.name != "DPEIteration"]
    assert {span.trace for span in below} == {root.trace}
    assert {span.parent for span in below} == {root.id}
    for stage in BATCH_STAGES:
        (span,) = [s for s in below if s.name == stage]
        entry = own.status.stage_status(stage)
        assert span.id == attempt_span_id(UID, stage, 1)
        assert span.status == otlp.OK
        assert (span.began, span.ended) == (entry.start_time.timestamp(), entry.completion_time.timestamp())
    assert {Stage.SERVE_BASE, Stage.SERVE_CANDIDATE} <= {span.name for span in below}


def test_an_attempt_that_failed_says_why_and_the_next_one_is_another_span_also_after_a_restart(collector: Collector):
    own = world(tracing.tracer(collector.url))
    while own.status.stage_status(Stage.TRAINING).attempt == 0 or not own.pods_of(own.jobs["shapes-1-training-1"]):
        own.turn()
        own.control()
        own.run_pods()
        if own.status.stage_status(Stage.TRAINING).attempt == 0:
            own.finish_work()
        own.control()
        own.pass_time(6)
    own.turn()
    own.tracer.close()
    own.tracer = tracing.tracer(collector.url)  # another operator, which has seen nothing of this
    for pod in own.pods_of(own.jobs["shapes-1-training-1"]):
        own.run_pods()
        own.end_pod(pod.uid, 75)
    own.control()
    own.behave()
    own.tracer.close()
    first, second = collector.named("training")
    assert first.status == otlp.ERROR
    assert "why" in first.said
    assert second.status == otlp.OK
    assert [first.id, second.id] == [attempt_span_id(UID, "training", n) for n in (1, 2)]
    assert first.ended <= second.began < second.ended
    assert first.about["dpe.attempt"] == 1


def test_an_attempt_that_was_disrupted_says_why_although_the_next_one_begins_with_the_same_look(collector: Collector):
    own = world(tracing.tracer(collector.url))
    (pod,) = own.until_pods_of(Stage.GENERATION)
    own.change(pod.uid, disrupted="EvictionByEvictionAPI: drained")
    own.end_pod(pod.uid, 143)
    own.control()
    own.behave()
    own.tracer.close()
    first, second = collector.named("generation")
    assert (first.status, second.status) == (otlp.ERROR, otlp.OK)
    assert "PodDisrupted" in first.said
    assert "drained" in first.said


def test_an_attempt_whose_job_is_gone_does_not_begin_with_the_first_one(collector: Collector):
    own = world(tracing.tracer(collector.url))
    for pod in own.until_pods_of(Stage.TRAINING):
        own.end_pod(pod.uid, 75)
    own.control()
    own.until_pods_of(Stage.TRAINING, 2)
    job = own.jobs["shapes-1-training-2"]
    own._delete(job.name, job.uid)
    own.behave()
    own.tracer.close()
    first, second, third = collector.named("training")
    assert first.ended <= second.began <= second.ended <= third.began
    assert "JobDeleted" in second.said


def test_an_iteration_that_is_deleted_while_it_runs_leaves_a_whole_trace_without_a_judgement(collector: Collector):
    own = world(tracing.tracer(collector.url))
    own.until_pods_of(Stage.GENERATION)
    left = tracing.untold(own.status, own.look(own.status), own.now)
    assert left is not None
    own.tracer.tell_deleted(left, own.now)
    own.tracer.close()
    (root,) = collector.named("DPEIteration")
    assert (root.id, root.parent, root.ended) == (root_span_id(UID), "", own.now.timestamp())
    deleted = [span for span in collector.spans if span.about.get("dpe.deleted")]
    assert {span.name for span in deleted} == {"DPEIteration", "serve-base", "generation"}
    assert {span.status for span in deleted} == {0}
    (attempt,) = collector.named("generation")
    assert (attempt.id, attempt.parent) == (attempt_span_id(UID, "generation", 1), root.id)
    own.behave()
    assert tracing.untold(own.status, own.look(own.status), own.now) is None, "its root was told"


def test_an_attempt_that_was_suspended_is_no_error(collector: Collector):
    own = world(tracing.tracer(collector.url))
    for _ in range(6):
        own.turn()
        own.control()
        own.run_pods()
        own.pass_time(6)
    own.spec = own.spec.model_copy(update={"suspend": True})
    own.turn()
    own.tracer.close()
    assert {span.status for span in collector.spans} == {0}
    assert collector.named("serve-base")


def test_a_collector_that_is_away_holds_nothing_up():
    tracer = tracing.tracer("http://127.0.0.1:9")
    own = world(tracer)
    own.behave()
    began = time.monotonic()
    tracer.close()
    assert own.status.phase is Phase.SUCCEEDED
    assert time.monotonic() - began < tracing.FLUSH_S + 1


def test_a_setting_that_opentelemetry_refuses_costs_the_operator_its_traces_and_nothing_else(monkeypatch, caplog):
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "256")
    own = world(tracing.tracer("http://127.0.0.1:9"))
    own.behave()
    assert own.status.phase is Phase.SUCCEEDED
    assert "no traces: max_export_batch_size must be less than or equal to max_queue_size" in caplog.text


def test_no_two_spans_share_an_id():
    spans = [(uid, stage, number) for uid in (UID, "another") for stage in Stage for number in (1, 2, 12)]
    ids = [attempt_span_id(*one) for one in spans] + [root_span_id(UID), root_span_id("another")]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("uid", [UID, "not-a-uuid", "00000000-0000-0000-0000-000000000000"])
def test_ids_have_the_forms_of_trace_context(uid: str):
    version, trace, span, flags = traceparent(uid, Stage.TRAINING, 2).split("-")
    assert (version, flags) == ("00", "01")
    assert trace == trace_id(uid)
    assert int(trace, 16)
    assert int(span, 16)
    assert (len(trace), len(span)) == (32, 16)
    assert len({root_span_id(uid), span, trace}) == 3


@pytest.mark.parametrize("address", ["collector:4318", "grpc://collector:4317", "http://collector:4318/?key=1"])
def test_an_address_that_is_none_is_refused(address: str):
    with pytest.raises(ValueError, match="endpoint"):
        given.platform(tracing={"endpoint": address})


@pytest.mark.parametrize("pasted", ["", "/", "/v1/traces", "/v1/traces/"])
def test_the_address_of_a_collector_may_be_that_of_its_traces(pasted: str):
    found = given.platform(tracing={"endpoint": f"http://collector:4318{pasted}"})
    assert found.tracing.endpoint == "http://collector:4318"
