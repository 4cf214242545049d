import sys
from pathlib import Path

import pytest
import yaml
from tests.fakes.memory_store import MemoryStore
from tests.unit.diagnosis import test_memory
from tests.unit.operator import given

from dpe_api.artifacts import DiagnosisReport
from dpe_api.diagnosis_spec import MixturePolicy
from dpe_api.launch import DiagnosisLaunch, parse_launch
from dpe_api.names import Stage
from dpe_api.spec import Spec
from dpe_api.status import Resolved
from dpe_jobs.__main__ import main as dpe_jobs
from dpe_jobs.diagnosis import mixture_cli
from dpe_jobs.diagnosis.mixture import mix
from dpe_operator.manifests import build
from dpe_operator.manifests.common import Attempt

ROOT = Path(__file__).parents[3]
REPORT = ROOT / "docs" / "mixture-report.json"
PAGE = ROOT / "docs" / "mixture.md"


def said(*arguments: str, store: MemoryStore | None = None) -> str:
    return mixture_cli.compare(mixture_cli.parser().parse_args(arguments), lambda: store or pytest.fail("no store"))


def launch(changed: dict[str, object]) -> DiagnosisLaunch:
    """What the diagnosis pod is told when the example's YAML says this of the mixture."""
    document = yaml.safe_load((ROOT / "examples" / "shapes" / "iteration-1.yaml").read_text())
    document["spec"]["mixture"].update(changed)
    spec = Spec.model_validate(document["spec"])
    assert spec.model.uri is not None
    resolved = Resolved(round=0, model_uri=spec.model.uri, spec=spec.resolve())
    attempt = Attempt(
        given.ITERATION, given.platform(), resolved, "s3://dpe/lab/x", Stage.DIAGNOSIS, 1, "shapes-1-serve-base-1"
    )
    (config,) = [child.body for child in build(attempt) if child.kind == "ConfigMap"]
    told = parse_launch(config["data"]["launch.json"])
    assert isinstance(told, DiagnosisLaunch)
    return told


def quotas(changed: dict[str, object]) -> dict[str, int]:
    """From the YAML to quotas, as operator and stage go about it."""
    told = launch(changed)
    report = DiagnosisReport.model_validate_json(REPORT.read_bytes())
    found = mix(
        report.of("probe").categories,
        told.mixture,
        told.generation.target_samples,
        seed=told.seed,
        round_number=told.round,
    )
    return {q.name: q.quota for q in found}


def test_changing_one_field_of_the_yaml_changes_the_policy():
    by_policy = {policy: quotas({"policy": policy.value}) for policy in MixturePolicy}
    assert len({tuple(q.values()) for q in by_policy.values()}) == len(MixturePolicy)
    assert all(sum(q.values()) == 192 for q in by_policy.values())
    assert by_policy[MixturePolicy.GAP] == quotas({}), "what the example says"


@pytest.mark.parametrize(
    ("field", "value"),
    [("reach", 0.0), ("retentionFloor", 1.0), ("explorationFloor", 0.1), ("targetAccuracy", 1.0)],
)
def test_every_other_field_of_the_yaml_changes_the_quotas_too(field, value):
    assert quotas({field: value}) != quotas({})


def test_the_tables_in_the_docs_are_what_the_command_gives(monkeypatch):
    monkeypatch.chdir(ROOT)
    text = PAGE.read_text()
    commands = [line for line in text.splitlines() if line.startswith("python -m dpe_jobs mixture ")]
    assert commands
    for command in commands:
        _, after = text.split(f"{command}\n```\n", 1)
        shown = after.strip().split("\n\n")[0]
        assert shown == said(*command.split()[4:])


def test_the_docs_name_every_policy_and_every_field():
    text = PAGE.read_text()
    fields = ("explorationFloor", "retentionFloor", "reach", "targetAccuracy", "memory.smoothing", "memory.damping")
    assert [n for n in [*MixturePolicy, *fields] if f"`{n}`" not in text] == []


def test_the_command_prints_one_policy_when_asked(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["dpe_jobs", "mixture", str(REPORT), "--policy", "uniform", "--samples", "70"])
    assert dpe_jobs() == 0
    out = capsys.readouterr().out
    assert "| category | accuracy | pass rate | uniform |  |" in out
    assert out.splitlines()[-1] == "| sum |  |  | 70 |  |"


def test_what_no_source_supplies_is_said(monkeypatch):
    table = said(str(REPORT), "--source", "shapes", "--policy", "gap")
    assert "no source" not in table
    monkeypatch.setattr(mixture_cli, "known_limits", lambda _, names: dict.fromkeys(names, 5) | {"shape": 0})
    table = said(str(REPORT), "--source", "shapes", "--policy", "gap", "--samples", "100")
    assert "no source supplies it" in table
    assert "at most 5" in table
    assert table.splitlines()[-1] == "| sum |  |  | 30 |  |"


def test_a_report_and_a_previous_round_are_read_from_the_store():
    store = MemoryStore()
    test_memory.fill(store)
    store.put("s3://dpe/x/report.json", REPORT.read_bytes())
    memory = ["--set", "memory.smoothing=0.5", "--previous", test_memory.PREVIOUS]
    without = said("s3://dpe/x/report.json", "--policy", "gap", store=store)
    smoothed = said("s3://dpe/x/report.json", "--policy", "gap", *memory, store=store)
    assert without != smoothed


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["nowhere.json"], 65, "NotFound: nowhere.json"),
        ([str(PAGE)], 65, "InvalidDocument"),
        ([str(REPORT), "--set", "reach"], 78, "write FIELD=VALUE"),
        ([str(REPORT), "--set", "reach=high"], 78, "reach: Input should be a valid number"),
        ([str(REPORT), "--set", "raech=1"], 78, "raech: Extra inputs are not permitted"),
        ([str(REPORT), "--set", "a.b.c=1"], 78, "write FIELD=VALUE"),
        ([str(REPORT), "--source", "paint"], 78, "installed are "),
    ],
)
def test_a_wrong_command_says_what_to_mend(arguments, code, text, capsys):
    assert mixture_cli.main(arguments) == code
    assert text in capsys.readouterr().err
