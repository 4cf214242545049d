import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from examples.shapes import demo
from examples.shapes.target import CommandFailed, Target, Unusable, run
from rich.console import Console
from tests.patience import deadline

EMBEDDED = Target(None, "dpe")


def make(tmp_path: Path, deadline: float = float("inf"), target: Target = EMBEDDED) -> tuple[demo.Demo, io.StringIO]:
    out = io.StringIO()
    timings = demo.Timings(tmp_path / "timings.json")
    return demo.Demo(target, Console(file=out, width=120), timings, deadline), out


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


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


class Helm:
    """Helm with one release, that is as `release.json` says; and a kubectl that agrees to everything."""

    def __init__(self, folder: Path) -> None:
        self._calls, self._release = folder / "calls", folder / "release.json"
        script(folder / "kubectl", "exit 0")
        script(
            folder / "helm",
            f"""while [ "${{1#-}}" != "$1" ]; do shift 2; done  # -n NAMESPACE, --kube-context NAME
if [ "$1" = status ]; then
  cat {self._release} 2>/dev/null || {{ echo 'Error: release: not found' >&2; exit 1; }}
else
  echo "$*" >> {self._calls}
fi""",
        )

    def says(self, state: str, age_s: float) -> None:
        since = datetime.now(UTC) - timedelta(seconds=age_s)
        self._release.write_text(json.dumps({"info": {"status": state, "last_deployed": since.isoformat()}}))

    def calls(self) -> list[str]:
        return [" ".join(line.split()[:3]) for line in self._calls.read_text().splitlines()]


@pytest.fixture
def helm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Helm:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for name in ("DPE_IMAGE", "DPE_S3_ENDPOINT", "DPE_S3_ACCESS_KEY", "DPE_S3_SECRET_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setattr(demo, "POLL_S", 0.01)
    return Helm(tmp_path)


UPGRADE = "upgrade --install dpe"


@pytest.mark.parametrize(
    ("state", "taken_back"),
    [
        ("pending-install", ["uninstall dpe --no-hooks"]),
        ("pending-upgrade", ["rollback dpe --no-hooks"]),
        ("pending-rollback", ["rollback dpe --no-hooks"]),
        ("failed", []),
        ("deployed", []),
    ],
)
def test_an_installation_that_was_cut_off_is_taken_back_before_the_next(
    helm: Helm, tmp_path: Path, state: str, taken_back: list[str]
) -> None:
    helm.says(state, age_s=demo.HELM_S + 60)
    it, out = make(tmp_path)
    it.install()
    assert helm.calls() == [*taken_back, UPGRADE]
    assert (f"an earlier installation was cut off ({state})" in out.getvalue()) == bool(taken_back)


@pytest.mark.parametrize(
    ("state", "command"),
    [
        ("pending-install", "helm --kube-context theirs -n science uninstall dpe --no-hooks --wait"),
        ("pending-upgrade", "helm --kube-context theirs -n science rollback dpe --no-hooks"),
    ],
)
def test_what_is_pending_on_a_cluster_of_others_is_not_taken_back(
    helm: Helm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, command: str
) -> None:
    monkeypatch.setenv("DPE_VALUES", str(tmp_path / "values.yaml"))
    helm.says(state, age_s=demo.HELM_S + 60)
    it, _ = make(tmp_path, target=Target("theirs", "science"))
    with pytest.raises(Unusable, match=f"release dpe is {state}: .*: {command}$"):
        it.install()
    assert not (tmp_path / "calls").exists()


def test_the_first_installation_finds_nothing_to_take_back(helm: Helm, tmp_path: Path) -> None:
    make(tmp_path)[0].install()
    assert helm.calls() == [UPGRADE]


def test_an_installation_that_may_still_be_at_work_is_waited_for(
    helm: Helm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helm.says("pending-install", age_s=10)
    monkeypatch.setattr(demo.time, "sleep", lambda _: helm.says("deployed", age_s=0))
    it, out = make(tmp_path)
    it.install()
    assert helm.calls() == [UPGRADE]
    assert re.search(r"waiting for it, 4 min \d+ s at most", out.getvalue())


@pytest.mark.parametrize(
    ("at_interrupt", "patience_s", "written"), [("sleep 0.5; echo failed > state; exit 1", 30, True), (":", 0.2, False)]
)
def test_ctrl_c_leaves_helm_a_while_to_write_down_that_it_was_cancelled(
    tmp_path: Path, at_interrupt: str, patience_s: float, written: bool
) -> None:
    script(
        tmp_path / "helm",
        f"cd {tmp_path}; trap '{at_interrupt}' INT; read go; echo $$ > pid; while :; do sleep 0.05; done",
    )
    code = (
        "from examples.shapes import target\n"
        f"target._LAST_WORDS_S = {patience_s}\n"
        f"target.run([{str(tmp_path / 'helm')!r}], stdin='go\\n')\n"  # read once it is waited for
    )
    shell = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stderr=subprocess.PIPE, text=True)
    pid, end = tmp_path / "pid", deadline(60)
    while not pid.exists() or not pid.read_text():
        assert time.monotonic() < end, "helm was not started"
        time.sleep(0.02)
    os.killpg(shell.pid, signal.SIGINT)
    assert "KeyboardInterrupt" in shell.communicate(timeout=60)[1]
    assert (tmp_path / "state").exists() == written
    assert not Path(f"/proc/{pid.read_text().strip()}").exists(), "it is gone in any case"
