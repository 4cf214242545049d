"""Alert rules, checked and played by Prometheus' own tool; tests/unit/monitoring/rules_test.yaml holds the stories."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
RULES = ROOT / "charts" / "dpe" / "files" / "rules.yaml"
STORIES = Path(__file__).with_name("rules_test.yaml")
ALERTS = {r["alert"]: r for g in yaml.safe_load(RULES.read_text())["groups"] for r in g["rules"] if "alert" in r}


def promtool(*arguments: str) -> str:
    """What promtool says; AssertionError with it when it is not content."""
    path = shutil.which("promtool")
    if path is None:
        pytest.fail("promtool is not installed: `make setup` installs it")
    done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    assert "SUCCESS" in promtool("check", "rules", str(RULES))


def test_every_selector_has_braces_into_which_the_chart_writes_its_release() -> None:
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    series = r"\b(?:dpe_(?!release\b)\w+|\w+:dpe\w+:\w+|up|process_start_time_seconds)\b(.)"
    assert {match for rule in rules for match in re.findall(series, rule["expr"])} == {"{"}


def test_every_alert_fires_when_it_should_and_not_before() -> None:
    promtool("test", "rules", str(STORIES))


def test_every_alert_has_a_story_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    told: dict[str, set[bool]] = {name: set() for name in ALERTS}
    for story in yaml.safe_load(STORIES.read_text())["tests"]:
        for check in story["alert_rule_test"]:
            told[check["alertname"]].add(bool(check["exp_alerts"]))
        firing = {c["alertname"] for c in story["alert_rule_test"] if c["exp_alerts"]}
        if len(story["input_series"]) > 1:  # a series beside it keeps still
            for name in firing:
                told[name].add(False)
    assert [name for name, kinds in told.items() if kinds != {True, False}] == []


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_has_a_severity_words_and_a_section_in_the_operations_page(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "description"}
    page = (ROOT / "docs" / "operations.md").read_text()
    section = re.search(rf"^### {alert}$(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
    assert section is not None, f"docs/operations.md has no section {alert}"
    assert "**Means**" in section[1]
    assert "**Do**" in section[1]


def test_the_operations_page_tells_of_no_alert_that_does_not_exist() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    assert set(re.findall(r"^### (DPE\w+)$", page, re.MULTILINE)) == set(ALERTS)
