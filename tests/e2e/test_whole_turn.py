"""One whole turn of the spiral on two real nodes, a short next one, and one in which everything is killed."""

import json
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from dev.cluster.config import Cluster
from examples.shapes.upload import model_manifest, publish_folder
from examples.shapes.verify import Evidence, Finding, findings
from selenium.webdriver.remote.webdriver import WebDriver

from dpe_api.artifacts import ServedReport
from dpe_api.names import BATCH_STAGES, Stage
from dpe_api.status import Phase, StageState, Status
from dpe_jobs.diagnosis.page import PAGE
from dpe_jobs.diagnosis.sample import PROBE
from dpe_jobs.store import join
from tests.browser.chromium import check_figures, complaints, look
from tests.e2e.conftest import Turn
from tests.e2e.world import World, example, wait_for
from tests.fakes.openai_server import Asked, serving
from tests.proxy import Proxy

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3000)]

QWEN3 = Path(__file__).parent / "qwen3"
SHORT: dict[str, dict[str, object]] = {
    "probe": {"sampleSize": 175},
    "diagnosis": {"rolloutsPerItem": 4, "attribution": {"endpoint": "teacher", "maxCalls": 60}},
    "generation": {"targetSamples": 64, "maxCandidates": 1500},
    "training": {"maxSteps": 8, "checkpointEverySteps": 2},
    "evaluation": {"gate": {"maxRegression": 1.0}},
}
"""For a turn that need not make a model better: that is the first one's to show."""


def published(world: World, root: str) -> set[str]:
    """What an iteration published: ledgers, exit reports and checkpoints depend on how often it was interrupted."""
    passing = ("/ledger/", "/attempts/", "/checkpoints/")
    names = {o.uri.removeprefix(root) for o in world.store.list(root)}
    return {n for n in names if not any(p in n for p in passing)}


def wrong(world: World, status: Status) -> list[Finding]:
    """What `make verify` finds amiss in an iteration's artifacts."""
    found = list(findings(Evidence(world.store, status)))
    assert len(found) > 10, "the verification looked at nearly nothing"
    return [f for f in found if not f.ok]


def test_first_iteration_makes_the_model_measurably_better(first_turn: Turn) -> None:
    benchmark = next(e for e in first_turn.status.evaluation if e.name == "test")
    assert first_turn.status.phase is Phase.SUCCEEDED
    assert benchmark.delta.value >= 0.05, "macro accuracy rises by at least 5 points"
    assert benchmark.delta.low > 0, "and the rise is no accident"
    diagnosed = {c.name: c for c in first_turn.status.diagnosis.categories}
    changes = {c.name: c for c in benchmark.categories}
    weakest = min((c for c in diagnosed.values() if c.reachable), key=lambda c: c.accuracy)
    assert changes[weakest.name].delta.value >= 0.15, f"{weakest.name} was weakest within reach"
    assert all(c.delta.value >= -0.05 for c in changes.values()), changes


def test_artifacts_verify_and_the_table_equals_the_parquet(first_turn: Turn, world: World) -> None:
    assert not wrong(world, first_turn.status)


def probe_rows(world: World, root: str, stage: Stage, folder: Path) -> list[dict[str, object]]:
    """Rows of the probe in a stage's items.parquet."""
    path = folder / f"{stage}.parquet"
    world.store.download(join(root, stage, "items.parquet"), path)
    return [row for row in pq.read_table(path).to_pylist() if row["set"] == PROBE]


@pytest.mark.parametrize("stage", [Stage.DIAGNOSIS, Stage.EVALUATION])
def test_the_report_page_opens_offline_and_shows_what_the_parquet_says(
    stage: Stage,
    first_turn: Turn,
    world: World,
    browser: WebDriver,
    tmp_path: Path,
) -> None:
    page = tmp_path / "report.html"
    world.store.download(join(first_turn.root, stage, PAGE), page)
    asked = [url for url in look(browser, page) if not url.startswith("data:")]
    assert asked == []
    assert complaints(browser) == []
    check_figures(browser, probe_rows(world, first_turn.root, stage, tmp_path))


def test_the_next_round_is_diagnosed_on_other_rows(first_turn: Turn, world: World, tmp_path: Path) -> None:
    before, after = (
        {row["id"] for row in probe_rows(world, first_turn.root, stage, tmp_path)}
        for stage in (Stage.DIAGNOSIS, Stage.EVALUATION)
    )
    assert len(before) == len(after) == 350
    # 2,386 rows in 7 categories, 50 of each drawn twice: nearly all are others
    assert len(before & after) < 100


def test_operator_killed_while_the_model_is_diagnosed_repeats_nothing(first_turn: Turn, world: World) -> None:
    assert [(s.name, s.attempt, s.failures, s.disruptions) for s in first_turn.status.stages] == [
        (stage, 1, 0, 0) for stage in Stage
    ]
    assert all(len(first_turn.timeline.of(first_turn.name, stage)) == 1 for stage in Stage if stage != Stage.TRAINING)


def test_serving_gives_its_gpus_back_before_training_starts(first_turn: Turn) -> None:
    serving = first_turn.timeline.of(first_turn.name, Stage.SERVE_BASE)
    training = first_turn.timeline.of(first_turn.name, Stage.TRAINING)
    assert serving
    assert all(s.over is not None for s in serving)
    assert max(s.over for s in serving if s.over) <= min(t.appeared for t in training)


def test_training_spreads_over_both_nodes(first_turn: Turn) -> None:
    training = first_turn.timeline.of(first_turn.name, Stage.TRAINING)
    assert len(training) == 2
    assert len({t.node for t in training}) == 2


def test_events_tell_the_story(first_turn: Turn, world: World) -> None:
    told = " ".join(f"{e.reason} {e.message}" for e in world.events(first_turn.name))
    for stage in Stage:
        assert stage in told, f"no event names {stage}:\n{told}"


def test_nothing_is_left_running_after_success(first_turn: Turn, world: World) -> None:
    live = [p.metadata.name for p in world.pods(first_turn.name) if p.status.phase in ("Pending", "Running")]
    assert live == []


def served_reports(world: World, name: str) -> list[ServedReport]:
    """What kept model servers said when they had taken the candidate."""
    folder = f"{world.artifacts(name)}/{Stage.SERVE_BASE}/attempts/1"
    found = [o.uri for o in world.store.list(folder) if "/served-" in o.uri]
    return [ServedReport.model_validate_json(world.store.get(uri)) for uri in found]


def test_the_second_iteration_reuses_the_rediagnosis_and_the_cached_model_and_one_vllm_serves_both_models(
    first_turn: Turn, world: World, model_cache: Path
) -> None:
    name = "shapes-2"
    assert first_turn.status.model is not None
    kept = model_cache / world.store.input_ref(first_turn.status.model.uri).sha256
    before_it = kept.stat()
    short = example(
        "iteration-1.yaml",
        serving={"keepRunning": True},
        generation={"targetSamples": 32},
        training={"nodes": 1, "maxSteps": 2, "checkpointEverySteps": 2},
        evaluation={"gate": {"maxRegression": 1.0}},
    )
    sections = ("serving", "generation", "training", "evaluation")
    world.create(name, example("iteration-2.yaml", **{section: short[section] for section in sections}))
    world.wait_stage_running(name, Stage.TRAINING, deadline_s=240)
    world.kill_operator()
    status = world.wait_phase(name, Phase.SUCCEEDED, deadline_s=300)

    assert status.diagnosis is not None
    assert status.diagnosis.reused, "the re-diagnosis of the first iteration was not reused"
    before = {c.name: c.quota for c in first_turn.status.diagnosis.categories}
    assert {c.name: c.quota for c in status.diagnosis.categories} != before, "same model, same mixture?"
    for entry in status.stages:
        assert (entry.attempt, entry.failures, entry.disruptions) == (1, 0, 0), f"{entry.name} ran twice"
        assert entry.state is StageState.DONE
    assert status.stage_status(Stage.SERVE_CANDIDATE).kept_from == 1
    (served,) = served_reports(world, name)
    assert status.model is not None
    assert (served.uri, served.in_place) == (status.model.candidate_uri, True)
    assert not wrong(world, status)
    after_it = kept.stat()
    assert after_it.st_ino == before_it.st_ino, "the model was in the cache and was downloaded again"
    assert after_it.st_mtime > before_it.st_mtime, "nobody asked the cache for the model"


def teacher(asked: Asked) -> list[str]:
    """Says the same of each wrong answer, and puts all lines into one group."""
    if "numbered lines" in asked.system:
        return [json.dumps({"weaknesses": [{"text": "mixes up neighbouring hues", "lines": [1]}]})]
    return [json.dumps({"error_type": "visual_recognition", "weakness": "mixes up neighbouring hues"})]


def test_a_run_on_qwen3_vl_loses_every_pod_the_operator_in_every_stage_the_store_for_a_minute_and_nothing_else(
    first_turn: Turn, world: World, way: Proxy, cluster: Cluster
) -> None:
    with serving(teacher, cluster.gateway) as model:
        bruise(first_turn, world, way, f"{model.url}/v1")
        looks = [a for a in model.requests if "numbered lines" not in a.system]
        assert len({(a.question, a.image) for a in looks}) >= 40


def bruise(first_turn: Turn, world: World, way: Proxy, endpoint: str) -> None:
    """One round of a run whose wrong answers an endpoint looks at; MinIO is away while it trains.

    The operator dies with each stage's pod.
    """
    model = f"s3://{world.bucket}/models/qwen3"
    publish_folder(world.store, QWEN3, model, model_manifest(QWEN3))
    template = example(
        "iteration-1.yaml",
        endpoints=[{"name": "teacher", "url": endpoint, "model": "fake"}],
        **SHORT,
    )
    del template["model"]
    world.create_run("bruised", {"model": {"uri": model}, "maxIterations": 1, "template": template})
    name = "bruised-1"
    wait_for(lambda: world.exists(name), 60, lambda: f"the run makes no round: {world.run_status('bruised')}")
    for stage in Stage:
        world.delete_pod(world.wait_stage_running(name, stage, deadline_s=240))
        world.kill_operator()
        if stage is Stage.TRAINING:
            lose_store(world, way, name)
    status = world.wait_phase(name, Phase.SUCCEEDED, deadline_s=600)
    assert published(world, world.artifacts(name)) == published(world, first_turn.root)
    for stage in BATCH_STAGES:
        entry = status.stage_status(stage)
        assert entry.state is StageState.DONE
        assert entry.failures == 0, f"{stage}: something was charged: {world.story(name)}"
    assert status.diagnosis is not None
    assert any("mixes up neighbouring hues" in weakness for weakness in status.diagnosis.weaknesses)
    assert not wrong(world, status)

    run = wait_for(
        lambda: (it := world.run_status("bruised")).phase.is_complete and it,
        60,
        lambda: f"it goes on: {world.run_status('bruised')}",
    )
    (only,) = run.rounds
    assert (only.iteration, only.phase, only.accepted) == (name, Phase.SUCCEEDED, True)
    assert run.model is not None
    assert status.model is not None
    assert (run.model.uri, run.model.round) == (status.model.uri, 1)
    assert run.page is not None
    assert world.store.find(run.page) is not None


def lose_store(world: World, way: Proxy, name: str) -> None:
    """For a minute of the training's second attempt nothing reaches MinIO."""
    wait_for(lambda: world.status(name).stage_status(Stage.TRAINING).attempt > 1, 120, lambda: world.story(name))
    world.wait_stage_running(name, Stage.TRAINING, deadline_s=240)
    way.cut()
    began = time.monotonic()
    try:
        wait_for(
            lambda: "StoreUnavailable" in (world.status(name).stage_status(Stage.TRAINING).message or ""),
            90,
            lambda: world.story(name),
        )
        time.sleep(max(0.0, 60 - (time.monotonic() - began)))
        assert not world.status(name).phase.is_final, world.story(name)
    finally:
        way.mend()
