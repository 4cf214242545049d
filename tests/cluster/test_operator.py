"""The operator as a process with its own rights, against a real API server, real pods and a real MinIO."""

from urllib.parse import urlsplit

import pytest
from kubernetes.client import ApiException
from tests.cluster import operators
from tests.cluster.operators import Lab
from tests.proxy import proxy

from dpe_api.names import BATCH_STAGES, GROUP, PLURAL, VERSION, Exit, Stage
from dpe_api.status import Phase, StageState

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]


def is_final(lab: Lab, name: str = "turn") -> bool:
    return lab.status(name).phase.is_final


def runs(lab: Lab, stage: Stage, attempt: int = 1) -> bool:
    """It works: its first progress is written after it has learnt to stop when told."""
    entry = lab.status().stage_status(stage)
    working = (entry.state, entry.attempt) == (StageState.RUNNING, attempt) and entry.progress is not None
    return working and bool(lab.pods(stage))


def is_done(lab: Lab, stage: Stage) -> bool:
    return lab.status().stage_status(stage).state is StageState.DONE


def test_a_turn_succeeds_and_tells_its_story(lab):
    lab.create()
    lab.until(lambda: is_final(lab), 150)
    status = lab.status()
    assert status.phase is Phase.SUCCEEDED
    assert (status.accuracy_before, status.accuracy_after) == ("62.2%", "80.0%")
    assert lab.condition("Complete")[:2] == ("True", "Succeeded")
    assert lab.condition("ModelAccepted")[0] == "True"
    assert all((s.state, s.attempt) == (StageState.DONE, 1) for s in status.stages)
    # model servers are gone, the Jobs of the other stages are kept for their logs
    lab.until(lambda: lab.jobs() == sorted(f"turn-{s}-1" for s in BATCH_STAGES))
    said = [reason for reason, _ in lab.events()]
    assert sorted(said) == sorted(["Accepted", *["StageStarted"] * 6, *["StageDone"] * 4, "GateAccepted"])
    assert any("accuracy 62.2% on test" in message for _, message in lab.events())
    # a metric may come a moment after the status that it counts
    lab.until(lambda: lab.metric(r'dpe_iterations\{phase="Succeeded"\} 1.0'))
    lab.until(lambda: lab.metric(r'dpe_stage_attempts_total\{outcome="done",stage="training"\} 1.0'))
    lab.until(lambda: lab.metric(r'dpe_tokens_total\{direction="prompt",endpoint="base"\} 2000.0'))


def test_a_pod_taken_from_a_gang_is_a_disruption_and_the_whole_gang_starts_anew(lab):
    lab.wish(Stage.TRAINING, 1, hold=True)
    lab.create(retry={"maxAttempts": 1})
    lab.until(lambda: runs(lab, Stage.TRAINING) and len(lab.pods(Stage.TRAINING)) == 2, 120)
    name = lab.pods(Stage.TRAINING)[0].metadata.name
    lab.core.create_namespaced_pod_eviction(name, lab.namespace, {"metadata": {"name": name}})
    lab.until(lambda: is_done(lab, Stage.TRAINING), 150)
    training = lab.status().stage_status(Stage.TRAINING)
    assert (training.attempt, training.failures, training.disruptions) == (2, 0, 1)
    assert "Disrupted" in [reason for reason, _ in lab.events()]


def test_a_crash_is_retried_and_then_fails_with_the_pods_own_message(lab):
    for attempt in (1, 2):
        lab.wish(Stage.DIAGNOSIS, attempt, exit=int(Exit.TRANSIENT), reason="ServerSlow", message="no answer in 120 s")
    lab.create(retry={"maxAttempts": 2})
    lab.until(lambda: is_final(lab), 120)
    status, reason, message = lab.condition("Failed")
    assert (status, reason) == ("True", "ServerSlow")
    assert "no answer in 120 s (after 2 failed attempts)" in message
    lab.until(lambda: not lab.pods(Stage.SERVE_BASE), 40)
    failed = [text for reason, text in lab.events() if reason == "AttemptFailed"]
    assert len(failed) == 2


def test_bad_data_fails_at_once_and_says_what_to_mend(lab):
    message = "s3://b/probe/part.parquet row 3: column image does not decode: replace it"
    lab.wish(Stage.DIAGNOSIS, 1, exit=int(Exit.BAD_DATA), reason="UndecodableImage", message=message)
    lab.create()
    lab.until(lambda: is_final(lab))
    assert lab.condition("Failed")[1] == "UndecodableImage"
    assert message in lab.condition("Failed")[2]
    assert lab.status().stage_status(Stage.DIAGNOSIS).attempt == 1


def test_a_model_server_that_dies_is_replaced_and_its_client_is_not_charged(lab):
    lab.wish(Stage.DIAGNOSIS, 1, hold=True)
    lab.create()
    lab.until(lambda: runs(lab, Stage.DIAGNOSIS))
    lab.wish(Stage.SERVE_BASE, 1, exit=int(Exit.PROGRAM_DIED), reason="EngineDied", message="the engine is gone")
    lab.until(lambda: is_done(lab, Stage.DIAGNOSIS), 150)
    status = lab.status()
    assert (status.stage_status(Stage.SERVE_BASE).attempt, status.stage_status(Stage.SERVE_BASE).failures) == (2, 1)
    assert (status.stage_status(Stage.DIAGNOSIS).attempt, status.stage_status(Stage.DIAGNOSIS).failures) == (2, 0)


def test_a_kept_model_server_is_the_same_pod_for_the_base_and_for_the_candidate(lab):
    lab.wish(Stage.TRAINING, 1, hold=True)
    lab.wish(Stage.EVALUATION, 1, hold=True)
    lab.create(serving={"keepRunning": True})
    lab.until(lambda: runs(lab, Stage.TRAINING), 120)
    (server,) = lab.pods(Stage.SERVE_BASE)
    lab.wish(Stage.TRAINING, 1)
    lab.until(lambda: "NotReloaded" in (lab.status().stage_status(Stage.SERVE_CANDIDATE).message or ""), 90)
    lab.restart()
    assert not lab.pods(Stage.EVALUATION)
    lab.wish(Stage.SERVE_BASE, 1, take=True)
    lab.until(lambda: runs(lab, Stage.EVALUATION), 90)
    (same,) = lab.pods(Stage.SERVE_BASE)
    assert same.metadata.uid == server.metadata.uid
    assert same.status.container_statuses[0].restart_count == 0
    assert not lab.pods(Stage.SERVE_CANDIDATE)
    lab.wish(Stage.EVALUATION, 1)
    lab.until(lambda: is_final(lab), 90)
    status = lab.status()
    assert status.phase is Phase.SUCCEEDED
    assert all((s.state, s.attempt, s.failures) == (StageState.DONE, 1, 0) for s in status.stages)
    assert status.stage_status(Stage.SERVE_CANDIDATE).kept_from == 1
    lab.until(lambda: not lab.pods(Stage.SERVE_BASE), 60)
    lab.until(lambda: lab.jobs() == sorted(f"turn-{s}-1" for s in BATCH_STAGES))


def test_suspending_removes_the_pods_and_resuming_finishes_without_a_charge(lab):
    lab.wish(Stage.GENERATION, 1, hold=True)
    lab.create()
    lab.until(lambda: runs(lab, Stage.GENERATION), 90)
    lab.patch({"suspend": True})
    lab.until(lambda: lab.status().phase is Phase.SUSPENDED)
    lab.until(lambda: not lab.pods(Stage.GENERATION) and not lab.pods(Stage.SERVE_BASE))
    assert lab.condition("Suspended")[0] == "True"
    lab.patch({"suspend": False})
    lab.until(lambda: is_done(lab, Stage.GENERATION), 150)
    generation = lab.status().stage_status(Stage.GENERATION)
    assert (generation.attempt, generation.failures, generation.disruptions) == (2, 0, 0)
    assert lab.condition("Suspended")[0] == "False"


def test_what_cannot_start_says_why_and_starts_by_itself_once_mended(lab):
    lab.core.delete_namespaced_secret(operators.SECRET, lab.namespace)
    probe = f"s3://{lab.bucket}/{lab.namespace}/later"
    lab.create(probe={"uri": probe})
    lab.until(lambda: (lab.condition("Accepted") or ("", "", ""))[1] == "SecretNotFound")
    assert "create it with keys accessKey and secretKey" in lab.condition("Accepted")[2]
    operators.give_secret(lab)
    lab.until(lambda: lab.condition("Accepted")[1] == "ProbeNotFound")
    assert f"spec.probe.uri is {probe}: there is nothing below it" in lab.condition("Accepted")[2]
    assert lab.jobs() == []
    lab.store.put(f"{probe}/part.parquet", b"x")
    lab.until(lambda: lab.condition("Accepted")[0] == "True")
    lab.until(lambda: lab.jobs() == ["turn-serve-base-1"])


CANNOT_RUN = {
    "no-pool": (
        {"serving": {"pool": "gold"}},
        "UnknownPool",
        "spec.serving.pool is gold; the pools of this cluster are",
    ),
    "no-model": ({"model": {"uri": "s3://dpe/none"}}, "ModelNotFound", "spec.model.uri is s3://dpe/none"),
    "no-benchmark": (
        {"evaluation": {"benchmarks": [{"name": "b", "uri": "s3://dpe/none"}]}},
        "BenchmarkNotFound",
        "spec.evaluation.benchmarks[0].uri is s3://dpe/none",
    ),
    "no-iteration": (
        {"model": {"iterationRef": {"name": "no-such"}}},
        "IterationNotFound",
        "spec.model.iterationRef.name is no-such",
    ),
    "itself": ({"model": {"iterationRef": {"name": "itself"}}}, "IterationCycle", "itself -> itself"),
}


def test_specs_that_cannot_run_here_are_conditions_and_nothing_is_spawned(lab):
    for name, (changes, _, _) in CANNOT_RUN.items():
        lab.create(name, **changes)
    for name, (_, reason, words) in CANNOT_RUN.items():
        lab.until(lambda name=name, reason=reason: (lab.condition("Accepted", name) or ())[:2] == ("False", reason))
        assert words in lab.condition("Accepted", name)[2]
    assert lab.jobs() == []


def test_a_missing_bucket_is_a_condition_that_names_it(idle):
    idle.platform["objectStore"]["bucket"] = "no-such-bucket"
    idle.start()
    idle.create()
    idle.until(lambda: (idle.condition("Accepted") or ("", "", ""))[1] == "BucketNotFound")
    assert "objectStore.bucket is no-such-bucket" in idle.condition("Accepted")[2]


def test_a_second_iteration_waits_for_the_first_and_continues_from_its_model(lab):
    lab.create("second", model={"iterationRef": {"name": "turn"}}, probe=None)
    lab.until(lambda: (lab.condition("Accepted", "second") or ("", ""))[1] == "IterationNotFound")
    lab.create()
    lab.until(lambda: lab.condition("Accepted", "second")[1] == "IterationNotFinished")
    lab.until(lambda: lab.status("second").resolved is not None, 150)
    resolved, first = lab.status("second").resolved, lab.root()
    assert (resolved.round, resolved.model_uri) == (1, f"{first}/training/model")
    assert resolved.reuse_diagnosis == f"{first}/evaluation"


def test_a_store_that_is_away_for_a_while_fails_nothing(idle, cluster):
    parts = urlsplit(cluster.s3_endpoint)
    with proxy(parts.hostname, (parts.hostname, parts.port)) as way:
        idle.platform["objectStore"]["endpoint"] = way.address
        idle.start()
        idle.wish(Stage.DIAGNOSIS, 1, hold=True)
        idle.create()
        idle.until(lambda: runs(idle, Stage.DIAGNOSIS))
        way.cut()
        idle.until(lambda: "StoreUnavailable" in (idle.status().stage_status(Stage.DIAGNOSIS).message or ""), 30)
        way.mend()
        idle.wish(Stage.DIAGNOSIS, 1)
        idle.until(lambda: is_done(idle, Stage.DIAGNOSIS), 150)
    assert all(s.failures == 0 for s in idle.status().stages)


def test_a_job_of_somebody_else_is_not_taken_over(lab):
    pod = {"containers": [{"name": "c", "image": "none"}], "restartPolicy": "Never"}
    foreign = {"metadata": {"name": "turn-serve-base-1"}, "spec": {"suspend": True, "template": {"spec": pod}}}
    lab.batch.create_namespaced_job(lab.namespace, foreign)
    lab.create()
    lab.until(lambda: "NameTaken" in (lab.status().stage_status(Stage.SERVE_BASE).message or ""))
    lab.batch.delete_namespaced_job("turn-serve-base-1", lab.namespace, propagation_policy="Background")
    lab.until(lambda: lab.serves(Stage.SERVE_BASE))


def test_a_quota_that_takes_no_job_is_told_and_waited_for(lab):
    """It was told in the operator's log alone, for ever."""
    quota = {"metadata": {"name": "few"}, "spec": {"hard": {"count/jobs.batch": "0"}}}
    lab.core.create_namespaced_resource_quota(lab.namespace, quota)
    lab.until(lambda: lab.core.read_namespaced_resource_quota("few", lab.namespace).status.hard)
    lab.create()
    lab.until(lambda: "exceeded quota: few" in (lab.status().stage_status(Stage.SERVE_BASE).message or ""))
    assert "NotAdmitted" in [reason for reason, _ in lab.events()]
    assert lab.status().stage_status(Stage.SERVE_BASE).attempt == 0
    lab.core.delete_namespaced_resource_quota("few", lab.namespace)
    lab.until(lambda: lab.serves(Stage.SERVE_BASE), 60)
    assert lab.status().stage_status(Stage.SERVE_BASE).failures == 0


def test_the_config_map_of_an_attempt_that_did_not_come_about_is_not_taken_for_the_next_one(lab):
    """Its Job was refused, and meanwhile the server that it names was another one."""
    lab.wish(Stage.DIAGNOSIS, 1, hold=True)
    quota = {"metadata": {"name": "one"}, "spec": {"hard": {"count/jobs.batch": "1"}}}
    lab.core.create_namespaced_resource_quota(lab.namespace, quota)
    lab.until(lambda: lab.core.read_namespaced_resource_quota("one", lab.namespace).status.hard)
    lab.create()
    lab.until(lambda: "exceeded quota: one" in (lab.status().stage_status(Stage.DIAGNOSIS).message or ""), 60)
    lab.batch.delete_namespaced_job("turn-serve-base-1", lab.namespace, propagation_policy="Foreground")
    lab.until(lambda: lab.status().stage_status(Stage.SERVE_BASE).attempt == 2, 60)
    keep = {"metadata": {"finalizers": ["dpe.test/keep"]}}
    lab.core.patch_namespaced_config_map("turn-diagnosis-1", lab.namespace, keep)
    lab.core.delete_namespaced_resource_quota("one", lab.namespace)
    kept = "ConfigMap turn-diagnosis-1 is outdated and is being deleted, which dpe.test/keep delays"
    lab.until(lambda: kept in (lab.status().stage_status(Stage.DIAGNOSIS).message or ""), 60)
    lab.core.patch_namespaced_config_map("turn-diagnosis-1", lab.namespace, {"metadata": {"finalizers": None}})
    lab.until(lambda: runs(lab, Stage.DIAGNOSIS), 90)
    told = lab.core.read_namespaced_config_map("turn-diagnosis-1", lab.namespace).data["launch.json"]
    assert "turn-serve-base-2" in told
    assert "turn-serve-base-1" not in told


def test_deleting_an_iteration_removes_its_pods_and_keeps_its_artifacts(lab):
    lab.wish(Stage.GENERATION, 1, hold=True)
    lab.create()
    lab.until(lambda: runs(lab, Stage.GENERATION), 90)
    root = lab.root()
    lab.custom.delete_namespaced_custom_object(GROUP, VERSION, lab.namespace, PLURAL, "turn")
    lab.until(lambda: not lab.core.list_namespaced_pod(lab.namespace).items)
    with pytest.raises(ApiException, match="404"):
        lab.body()
    assert lab.store.manifest(f"{root}/diagnosis") is not None


def test_a_finished_iteration_is_removed_after_its_time_to_live(lab):
    lab.wish(Stage.DIAGNOSIS, 1, exit=int(Exit.BAD_DATA), reason="UndecodableImage", message="replace it")
    lab.create(ttlSecondsAfterFinished=3600)
    lab.until(lambda: is_final(lab), 150)
    lab.patch({"ttlSecondsAfterFinished": 0})
    lab.until(lambda: not lab.custom.list_namespaced_custom_object(GROUP, VERSION, lab.namespace, PLURAL)["items"])
