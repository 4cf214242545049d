from datetime import UTC, datetime

import pytest
from tests.fakes.memory_store import MemoryStore

from dpe_api.artifacts import (
    CategoryChange,
    CategoryReport,
    CategorySamples,
    Comparison,
    DiagnosisReport,
    DiagnosisSummary,
    EvaluationSummary,
    GenerationSummary,
    Interval,
    Manifest,
    Quota,
    SetReport,
)
from dpe_api.base import ApiModel
from dpe_api.diagnosis_spec import MixtureMemory
from dpe_api.names import Stage
from dpe_jobs.diagnosis.memory import read_memory
from dpe_jobs.diagnosis.mixture import Past
from dpe_jobs.runtime import BadData

PREVIOUS = "s3://dpe/team/shapes-0-01234567"
HALF = Interval(value=0.5, low=0.4, high=0.6)
ROSE = Interval(value=0.1, low=-0.02, high=0.22)
ALL = MixtureMemory(smoothing=0.3, damping=0.5)


def publish(store: MemoryStore, stage: Stage, summary: ApiModel) -> None:
    made = datetime(2026, 1, 1, tzinfo=UTC)
    store.publish(f"{PREVIOUS}/{stage}", Manifest(stage=stage, created_at=made, summary=summary.wire()))


def fill(store: MemoryStore) -> None:
    """A round that asked color and shape, never asked map, and trained on color alone."""
    rows = [
        CategoryReport(name=name, n=n, errors=0, correct=n // 2, accuracy=HALF)
        for name, n in (("color", 20), ("map", 0), ("shape", 20))
    ]
    probe = SetReport(name="probe", uri="s3://dpe/data/probe", n=40, errors=0, macro=HALF, categories=rows)
    report = DiagnosisReport(model_uri="s3://dpe/models/base", model_sha256="0", fingerprint="f", sets=[probe])
    quotas = [
        Quota(name=name, weight=weight, quota=quota, reachable=True, retention=False)
        for name, weight, quota in (("color", 0.7, 70), ("map", 0.02, 2), ("shape", 0.28, 28))
    ]
    publish(store, Stage.DIAGNOSIS, DiagnosisSummary(report=report, quotas=quotas))
    made = [
        CategorySamples(name=name, quota=quota, candidates=100, kept=kept, rejected={})
        for name, quota, kept in (("color", 70, 65), ("map", 2, 0), ("shape", 28, 0))
    ]
    publish(
        store,
        Stage.GENERATION,
        GenerationSummary(target=100, candidates=300, kept=65, shortfall=35, rejected={}, categories=made),
    )
    compared = [
        Comparison(
            name=name,
            n=20,
            before=0.5,
            after=after,
            delta=ROSE,
            categories=[CategoryChange(name="color", n=20, before=0.5, after=after, delta=delta)],
        )
        for name, after, delta in (("test", 0.9, HALF), ("probe", 0.6, ROSE))
    ]
    said = EvaluationSummary(report=report, comparisons=compared, confidence=0.9, accepted=False, reason="rejected")
    publish(store, Stage.EVALUATION, said)


def test_memory_is_what_the_previous_round_wanted_made_and_changed_on_the_probe():
    store = MemoryStore()
    fill(store)
    memory = read_memory(store, PREVIOUS, ALL)
    assert memory is not None
    assert memory.categories == {"color": Past(0.7, 65, ROSE), "map": Past(None, 0, None), "shape": Past(0.28, 0, None)}
    assert memory.confidence == 0.9
    assert [ref.uri for ref in memory.inputs] == [f"{PREVIOUS}/{s}" for s in ("diagnosis", "generation", "evaluation")]


def test_a_first_round_and_one_that_asks_for_no_memory_read_nothing():
    store = MemoryStore()
    store.down = True
    assert read_memory(store, None, ALL) is None
    assert read_memory(store, PREVIOUS, MixtureMemory()) is None


def test_smoothing_alone_needs_the_diagnosis_alone():
    store = MemoryStore()
    fill(store)
    store.delete([f"{PREVIOUS}/{stage}/manifest.json" for stage in ("generation", "evaluation")])
    memory = read_memory(store, PREVIOUS, MixtureMemory(smoothing=0.3))
    assert memory is not None
    assert memory.categories["color"] == Past(0.7)


@pytest.mark.parametrize("stage", ["diagnosis", "generation", "evaluation"])
def test_a_lost_artifact_is_bad_data_and_names_the_field(stage):
    store = MemoryStore()
    fill(store)
    store.delete([f"{PREVIOUS}/{stage}/manifest.json"])
    with pytest.raises(BadData, match=rf"spec\.mixture\.memory needs the {stage} .*smoothing and damping 0") as caught:
        read_memory(store, PREVIOUS, ALL)
    assert caught.value.reason == "MemoryLost"
