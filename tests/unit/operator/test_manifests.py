import json

import pytest
from tests.unit.operator import given

from dpe_api.launch import parse_launch
from dpe_api.names import Stage
from dpe_api.status import Resolved
from dpe_operator.manifests import build
from dpe_operator.manifests.common import Attempt
from dpe_operator.platform import Platform

LONGEST = "a" * 40


def attempt(stage: Stage, number: int = 2, platform: Platform | None = None, **spec) -> Attempt:
    resolved = Resolved(
        round=1, model_uri="s3://dpe/models/base", reuse_diagnosis=None, spec=given.spec(**spec).resolve()
    )
    server = None if stage.is_serving or stage is Stage.TRAINING else "shapes-1-serve-base-1"
    root = "s3://dpe/lab/shapes-1-01234567"
    return Attempt(given.ITERATION, platform or given.platform(), resolved, root, stage, number, server)


def children(stage: Stage, **more):
    return {c.kind: c.body for c in build(attempt(stage, **more))}


def pod_of(stage: Stage, **more):
    return children(stage, **more)["Job"]["spec"]["template"]


@pytest.mark.parametrize("stage", Stage)
def test_every_pod_passes_the_restricted_profile_and_holds_no_token(stage):
    spec = pod_of(stage)["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 65532
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    assert all(set(v) & {"emptyDir", "configMap"} for v in spec["volumes"])


@pytest.mark.parametrize("stage", Stage)
def test_children_carry_their_name_labels_and_owner(stage):
    for body in children(stage).values():
        meta = body["metadata"]
        assert meta["name"] == f"shapes-1-{stage}-2"
        assert (
            meta["labels"].items()
            >= {
                "app.kubernetes.io/name": "dpe",
                "app.kubernetes.io/component": stage.value,
                "app.kubernetes.io/managed-by": "dpe-operator",
                "dpe.dev/iteration": "shapes-1",
                "dpe.dev/stage": stage.value,
                "dpe.dev/attempt": "2",
            }.items()
        )
        (owner,) = meta["ownerReferences"]
        assert (owner["uid"], owner["controller"]) == (given.ITERATION.uid, True)


@pytest.mark.parametrize("stage", Stage)
def test_credentials_come_by_reference_only(stage):
    text = json.dumps(children(stage))
    assert '"secretKeyRef": {"name": "dpe-store", "key": "secretKey"}' in text
    env = pod_of(stage)["spec"]["containers"][0]["env"]
    assert all("value" not in e for e in env if e["name"].startswith("DPE_S3"))


@pytest.mark.parametrize("stage", Stage)
def test_the_launch_in_the_config_map_is_what_the_stage_reads(stage):
    config = children(stage)["ConfigMap"]
    assert config["immutable"] is True
    launch = parse_launch(config["data"]["launch.json"])
    assert (launch.stage, launch.attempt, launch.round) == (stage, 2, 1)
    assert launch.output == f"s3://dpe/lab/shapes-1-01234567/{stage}"
    assert launch.iteration.uid == given.ITERATION.uid


@pytest.mark.parametrize("stage", [Stage.GENERATION, Stage.TRAINING])
def test_samples_are_made_and_trained_on_in_the_size_in_which_a_diagnosis_asks(stage):
    launch = parse_launch(children(stage, diagnosis={"maxPixels": 200_704})["ConfigMap"]["data"]["launch.json"])
    assert launch.max_pixels == 200_704


@pytest.mark.parametrize("stage", Stage)
def test_jobs_are_never_retried_by_the_job_controller(stage):
    job = children(stage)["Job"]["spec"]
    assert job["backoffLimit"] == 0
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    assert "podFailurePolicy" not in job


def test_shards_are_pods_of_one_job_and_one_that_is_lost_is_replaced_alone():
    job = children(Stage.GENERATION, generation={"shards": 5})["Job"]["spec"]
    assert (job["completions"], job["parallelism"], job["completionMode"]) == (5, 5, "Indexed")
    assert "backoffLimit" not in job
    assert (job["backoffLimitPerIndex"], job["maxFailedIndexes"]) == (3, 0)
    by_code, by_disruption = job["podFailurePolicy"]["rules"]
    assert (by_code["action"], by_code["onExitCodes"]["values"]) == ("FailJob", [65, 78])
    assert by_disruption["action"] == "Ignore"


def test_the_command_is_the_platforms_followed_by_the_stage():
    argument = {s: pod_of(s)["spec"]["containers"][0]["command"][-1] for s in Stage}
    assert argument == {
        Stage.SERVE_BASE: "serve",
        Stage.DIAGNOSIS: "diagnosis",
        Stage.GENERATION: "generation",
        Stage.TRAINING: "training",
        Stage.SERVE_CANDIDATE: "serve",
        Stage.EVALUATION: "evaluation",
    }
    assert pod_of(Stage.TRAINING)["spec"]["containers"][0]["image"] == "training:1"


def test_serving_asks_for_gpus_fetches_the_model_and_is_ready_by_its_wrapper():
    found = children(Stage.SERVE_BASE, serving={"gpusPerReplica": 4, "replicas": 3})
    spec = found["Job"]["spec"]["template"]["spec"]
    (main,), (fetch,) = spec["containers"], spec["initContainers"]
    assert main["resources"]["limits"] == {"memory": "8Gi", "nvidia.com/gpu": "4"}
    assert main["readinessProbe"]["httpGet"] == {"path": "/ready", "port": 9090}
    assert fetch["command"][-1] == "fetch-model"
    assert fetch["image"] == "jobs:1"
    assert "nvidia.com/gpu" not in json.dumps(fetch)
    assert spec["nodeSelector"] == {"pool": "i"}
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}} in spec["volumes"]
    assert found["Job"]["spec"]["parallelism"] == 3
    launch = parse_launch(found["ConfigMap"]["data"]["launch.json"])
    assert launch.tensor_parallel_size == 4


def test_each_model_server_has_a_service_of_its_own_attempt():
    service = children(Stage.SERVE_CANDIDATE)["Service"]["spec"]
    assert service["selector"] == {
        "dpe.dev/iteration": "shapes-1",
        "dpe.dev/stage": "serve-candidate",
        "dpe.dev/attempt": "2",
    }
    assert {p["port"] for p in service["ports"]} == {8000, 9090}
    launch = parse_launch(children(Stage.SERVE_CANDIDATE)["ConfigMap"]["data"]["launch.json"])
    assert launch.model_uri == "s3://dpe/lab/shapes-1-01234567/training/model"


def test_clients_are_given_the_address_of_one_model_server():
    found = children(Stage.DIAGNOSIS)
    launch = parse_launch(found["ConfigMap"]["data"]["launch.json"])
    assert launch.model.url == "http://shapes-1-serve-base-1.lab.svc:8000"
    assert found["Job"]["metadata"]["annotations"] == {"dpe.dev/served-by": "shapes-1-serve-base-1"}


@pytest.mark.parametrize(
    ("asks", "serves"), [(Stage.DIAGNOSIS, Stage.SERVE_BASE), (Stage.EVALUATION, Stage.SERVE_CANDIDATE)]
)
def test_who_asks_knows_how_the_server_was_started(asks, serves):
    spec = {"serving": {"maxModelLen": 512, "extraArgs": ["--quantization", "fp8"]}}
    asking, serving = (
        parse_launch(children(stage, **spec)["ConfigMap"]["data"]["launch.json"]) for stage in (asks, serves)
    )
    assert (asking.model.max_model_len, asking.model.extra_args) == (512, ["--quantization", "fp8"])
    assert (serving.max_model_len, serving.extra_args) == (512, ["--quantization", "fp8"])


def test_training_is_a_gang_that_spreads_over_nodes_behind_a_headless_service():
    found = children(Stage.TRAINING)
    job, service = found["Job"]["spec"], found["Service"]["spec"]
    assert (job["completionMode"], job["completions"], job["parallelism"]) == ("Indexed", 2, 2)
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
    spec = job["template"]["spec"]
    assert spec["subdomain"] == "shapes-1-training-2"
    (spread,) = spec["topologySpreadConstraints"]
    # else the loss of one of two nodes would keep the gang from going on where there is room
    assert (spread["topologyKey"], spread["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "ScheduleAnyway")
    assert spread["labelSelector"]["matchLabels"]["dpe.dev/attempt"] == "2", "an earlier attempt's pods do not count"
    launch = parse_launch(found["ConfigMap"]["data"]["launch.json"])
    assert launch.rendezvous_host == "shapes-1-training-2-0.shapes-1-training-2"
    env = {e["name"]: e.get("value") for e in spec["containers"][0]["env"]}
    assert env.items() >= {"NCCL_DEBUG": "WARN", "OMP_NUM_THREADS": "1", "HOME": "/tmp", "LOGNAME": "dpe"}.items()


def test_queue_labels_of_the_iteration_go_to_its_jobs_and_others_do_not():
    labels = children(Stage.TRAINING)["Job"]["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "gpus"
    assert "team" not in labels


def test_platform_knobs_reach_the_pods():
    platform = given.platform(
        pods={
            "runtimeClassName": "devhost",
            "priorityClassName": "low",
            "imagePullSecrets": [{"name": "r"}],
            "extraVolumes": [{"name": "e", "emptyDir": {}}],
            "extraVolumeMounts": [{"name": "e", "mountPath": "/e"}],
            "annotations": {"a": "b"},
            "labels": {"c": "d", "dpe.dev/stage": "not this"},
        },
        jobsPool="training",
    )
    template = pod_of(Stage.DIAGNOSIS, platform=platform)
    assert template["metadata"]["annotations"]["a"] == "b"
    assert template["metadata"]["labels"].items() >= {"c": "d", "dpe.dev/stage": "diagnosis"}.items()
    spec = template["spec"]
    assert (spec["runtimeClassName"], spec["priorityClassName"]) == ("devhost", "low")
    assert {"name": "e", "mountPath": "/e"} in spec["containers"][0]["volumeMounts"]
    assert spec["nodeSelector"] == {"pool": "t"}


def test_a_pool_gives_its_pods_a_runtime_further_devices_networks_and_a_place_for_scratch():
    claim = {"ephemeral": {"volumeClaimTemplate": {"spec": {"storageClassName": "nvme"}}}}
    training = {
        "extendedResources": {"rdma/hca": "1"},
        "annotations": {"k8s.v1.cni.cncf.io/networks": "ib0"},
        "runtimeClassName": "nvidia",
        "scratch": claim,
    }
    pods = {"runtimeClassName": "runc", "annotations": {"team": "vision"}}
    facts = given.platform(pools={"inference": {}, "training": training}, pods=pods)
    found = pod_of(Stage.TRAINING, platform=facts, training={"gpusPerNode": 8})
    (main,) = found["spec"]["containers"]
    devices = {"nvidia.com/gpu": "8", "rdma/hca": "1"}
    assert (main["resources"]["requests"], main["resources"]["limits"]) == (devices, devices)
    assert found["spec"]["runtimeClassName"] == "nvidia"
    assert found["metadata"]["annotations"].items() >= {"team": "vision", "k8s.v1.cni.cncf.io/networks": "ib0"}.items()
    volumes = {v["name"]: v for v in found["spec"]["volumes"]}
    assert all(volumes[name] == {"name": name, **claim} for name in ("work", "model"))
    elsewhere = pod_of(Stage.SERVE_BASE, platform=facts)
    assert elsewhere["spec"]["runtimeClassName"] == "runc"
    assert "k8s.v1.cni.cncf.io/networks" not in elsewhere["metadata"]["annotations"]


def test_without_gpus_no_device_of_the_pool_is_asked_for():
    facts = given.platform(pools={"inference": {}, "training": {"extendedResources": {"rdma/hca": "1"}}})
    (main,) = pod_of(Stage.TRAINING, platform=facts, training={"gpusPerNode": 0})["spec"]["containers"]
    assert "rdma/hca" not in str(main["resources"])


def test_a_namespace_may_choose_the_user_itself():
    security = pod_of(Stage.TRAINING, platform=given.platform(pods={"runAsUser": None}))["spec"]["securityContext"]
    assert security == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_the_longest_names_are_still_names():
    for stage in Stage:
        assert len(f"{LONGEST}-{stage}-9999") <= 63


@pytest.mark.parametrize("stage", [Stage.SERVE_BASE, Stage.TRAINING, Stage.SERVE_CANDIDATE])
def test_a_cache_of_models_is_written_by_the_init_container_alone(stage):
    claim = {"persistentVolumeClaim": {"claimName": "models"}}
    platform = given.platform(modelCache={"volume": claim, "maxSize": "2Ti"})
    spec = pod_of(stage, platform=platform)["spec"]
    assert {"name": "models", **claim} in spec["volumes"]
    (init,), (main,) = spec["initContainers"], spec["containers"]
    assert {"name": "models", "mountPath": "/models"} in init["volumeMounts"]
    assert {"name": "models", "mountPath": "/models", "readOnly": True} in main["volumeMounts"]
    launch = parse_launch(children(stage, platform=platform)["ConfigMap"]["data"]["launch.json"])
    assert launch.model_cache_bytes == 2 * 2**40


def test_only_servers_of_the_base_that_are_kept_know_what_comes_next():
    def following(stage: Stage, *, keep: bool) -> str | None:
        made = children(stage, serving={"keepRunning": keep})
        return parse_launch(made["ConfigMap"]["data"]["launch.json"]).next_model_uri

    candidate = parse_launch(children(Stage.SERVE_CANDIDATE)["ConfigMap"]["data"]["launch.json"])
    assert following(Stage.SERVE_BASE, keep=True) == candidate.model_uri
    assert following(Stage.SERVE_BASE, keep=False) is None
    assert following(Stage.SERVE_CANDIDATE, keep=True) is None


def test_a_size_of_the_cache_that_is_none_is_refused():
    with pytest.raises(ValueError, match="lots"):
        given.platform(modelCache={"maxSize": "lots"})


LMMS_EVAL = {"image": "lmms-eval:1", "data": {"persistentVolumeClaim": {"claimName": "benchmarks"}}}
ASKED = {"evaluation": {"lmmsEval": [{"task": "ai2d", "gate": True}]}}


@pytest.mark.parametrize("stage", [Stage.DIAGNOSIS, Stage.EVALUATION])
def test_public_benchmarks_have_their_image_and_read_their_data(stage):
    lent = given.platform(lmmsEval=LMMS_EVAL)
    spec = pod_of(stage, platform=lent, **ASKED)["spec"]
    (main,) = spec["containers"]
    assert (main["image"], main["command"]) == ("lmms-eval:1", ["python3", "-m", "dpe_jobs", str(stage)])
    assert {"name": "lmms-eval", "mountPath": "/lmms-eval", "readOnly": True} in main["volumeMounts"]
    assert {"name": "lmms-eval", **LMMS_EVAL["data"]} in spec["volumes"]
    assert main["securityContext"]["readOnlyRootFilesystem"] is True
    launch = parse_launch(children(stage, platform=lent, **ASKED)["ConfigMap"]["data"]["launch.json"])
    tasks = launch.lmms_eval if stage is Stage.DIAGNOSIS else launch.evaluation.lmms_eval
    assert [(t.task, t.gate) for t in tasks] == [("ai2d", True)]
    assert pod_of(stage, platform=lent) == pod_of(stage)


def test_other_stages_know_nothing_of_public_benchmarks():
    for stage in set(Stage) - {Stage.DIAGNOSIS, Stage.EVALUATION}:
        assert pod_of(stage, platform=given.platform(lmmsEval=LMMS_EVAL), **ASKED) == pod_of(stage, **ASKED)


@pytest.mark.parametrize("stage", list(Stage))
def test_pods_are_told_where_traces_go_and_a_variable_of_the_platform_wins(stage):
    named = {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"}

    def told(**changes) -> list[dict[str, str]]:
        spec = pod_of(stage, platform=given.platform(**changes))["spec"]
        containers = [*spec["containers"], *spec.get("initContainers", ())]
        return [{e["name"]: e["value"] for e in c["env"] if e["name"] in named} for c in containers]

    assert not any(told())
    for found in told(tracing={"endpoint": "http://otel:4318"}):
        assert found["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://otel:4318"
        assert {found[n] for n in named - {"OTEL_EXPORTER_OTLP_ENDPOINT"}} == {"http/protobuf"}
    own = [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://mine:4318"}]
    parts = {part: {"image": "i", "env": own} for part in ("jobs", "serving", "training")}
    assert {f["OTEL_EXPORTER_OTLP_ENDPOINT"] for f in told(tracing={"endpoint": "http://otel:4318"}, **parts)} == {
        "http://mine:4318"
    }
