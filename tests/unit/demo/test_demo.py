import io
from pathlib import Path

import pytest
from examples.shapes import demo
from examples.shapes.target import CommandFailed, Target, Unusable, run
from rich.console import Console

EMBEDDED = Target(None, "dpe")


def make(tmp_path: Path, deadline: float = float("inf")) -> tuple[demo.Demo, io.StringIO]:
    out = io.StringIO()
    timings = demo.Timings(tmp_path / "timings.json")
    return demo.Demo(EMBEDDED, Console(file=out, width=120), timings, deadline), out


def test_a_step_says_how_long_it_took_last_time(tmp_path: Path) -> None:
    first, out = make(tmp_path)
    with first.step("Uploading", "upload"):
        pass
    assert "▶ Uploading (first time)" in out.getvalue()
    first.timings.keep(upload=65.0)
    second, out = make(tmp_path)
    with second.step("Uploading", "upload"):
        pass
    assert "▶ Uploading (last time 1 min 05 s)" in out.getvalue()
    assert "✓ Uploading: 0 s" in out.getvalue()


def test_a_step_that_fails_is_said_to_fail_and_not_remembered(tmp_path: Path) -> None:
    failing, out = make(tmp_path)
    with pytest.raises(CommandFailed), failing.step("Installing", "install"):
        raise CommandFailed("helm: exit code 1")
    assert "✗ Installing" in out.getvalue()
    assert failing.timings.seconds == {}


def test_timings_that_were_torn_are_forgotten(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('{"upload": 3')
    assert demo.Timings(tmp_path / "t.json").seconds == {}


def test_credentials_go_through_standard_input_and_not_through_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "DPE_IMAGE": "localhost/dpe:1",
        "DPE_S3_ENDPOINT": "http://s3:9000",
        "DPE_S3_ACCESS_KEY": "access",
        "DPE_S3_SECRET_KEY": "secret",
    }.items():
        monkeypatch.setenv(name, value)
    files, values = demo.chart_values(EMBEDDED)
    assert files == ["dev/values.yaml"]
    assert values["objectStore"] == {
        "endpoint": "http://s3:9000",
        "bucket": "dpe",
        "accessKey": "access",
        "secretKey": "secret",
    }
    assert {values[part]["image"] for part in ("operator", "jobs", "serving", "training")} == {"localhost/dpe:1"}  # type: ignore[index]


def test_on_a_cluster_of_your_own_only_your_values_are_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DPE_VALUES", f"{tmp_path}/a.yaml,{tmp_path}/b.yaml")
    assert demo.chart_values(Target("gpu", "dpe")) == ([f"{tmp_path}/a.yaml", f"{tmp_path}/b.yaml"], {})
    monkeypatch.delenv("DPE_VALUES")
    with pytest.raises(Unusable, match="DPE_VALUES"):
        demo.chart_values(Target("gpu", "dpe"))


def test_a_missing_variable_is_named_together_with_what_sets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DPE_IMAGE", "DPE_S3_ENDPOINT", "DPE_S3_ACCESS_KEY", "DPE_S3_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(Unusable, match=r"DPE_IMAGE, .* is not set: start it with `make demo`"):
        demo.chart_values(EMBEDDED)


def test_a_failed_command_tells_its_own_words() -> None:
    with pytest.raises(CommandFailed, match=r"(?s)sh -c .*exit code 3.*no such chart"):
        run(["sh", "-c", "echo no such chart >&2; exit 3"])
