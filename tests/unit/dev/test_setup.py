import os
import re
import shutil
import signal
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from dev import paths
from dev.cluster import preflight
from dev.setup import __main__ as setup
from dev.setup import binaries, packages, python, steps

LOCKS = [paths.REQUIREMENTS, *sorted((paths.CHECKOUT / "images" / "requirements").glob("*.txt"))]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DPE_CACHE", str(tmp_path))
    return tmp_path


def entries(text: str) -> list[str]:
    return [e for e in re.split(r"\n(?=[A-Za-z0-9])", text) if not e.startswith("#")]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda p: p.stem)
def test_every_package_is_pinned_by_version_and_hash_and_no_index_is_named(lock: Path) -> None:
    text = lock.read_text()
    assert not re.search(r"https?://|^\s*--(?!hash)|file:", text, re.MULTILINE)
    for entry in entries(text):
        assert re.match(r"[A-Za-z0-9._-]+(\[[a-z,-]+\])?==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_the_lock_covers_what_pyproject_asks_for() -> None:
    project = tomllib.loads((paths.CHECKOUT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    names = {re.split(r"[\[=<>! ]", r)[0].lower().replace("_", "-") for r in asked}
    locked = {re.split(r"[\[=]", e)[0].lower() for e in entries(paths.REQUIREMENTS.read_text())}
    assert names <= locked, f"run `make lock`: {names - locked}"


def test_what_is_built_from_source_is_taken_out_with_its_hashes() -> None:
    wheels, sources = python.split_requirements(
        "a==1 \\\n    --hash=sha256:1\n    # via dpe\n"
        "deepspeed==2 \\\n    --hash=sha256:2\n"
        "z==3 \\\n    --hash=sha256:3\n"
    )
    assert wheels == "a==1 \\\n    --hash=sha256:1\n    # via dpe\nz==3 \\\n    --hash=sha256:3\n\n"
    assert sources == "deepspeed==2 \\\n    --hash=sha256:2\n"


def test_comments_of_the_lock_do_not_make_another_environment(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "requirements.txt"
    monkeypatch.setattr(paths, "REQUIREMENTS", lock)
    lock.write_text("a==1\n    # via b\n")
    first = paths.venv()
    lock.write_text("a==1\n    # via c\n")
    assert paths.venv() == first
    lock.write_text("a==2\n    # via c\n")
    assert paths.venv() != first


def fake_go(folder: Path, version: str, toolchain: str) -> None:
    script = folder / "go"
    script.write_text(f"#!/bin/sh\necho {version}\necho {toolchain}\n")
    script.chmod(0o755)


@pytest.mark.parametrize(
    ("version", "toolchain", "accepted"),
    [
        ("go1.26.1", "local", True),
        ("go1.27", "auto", True),
        ("go1.22.3", "auto", True),
        ("go1.22.3", "local", False),
        ("go1.19.8", "", False),
    ],
)
def test_an_old_go_is_accepted_only_when_it_can_fetch_a_newer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, toolchain: str, accepted: bool
) -> None:
    fake_go(tmp_path, version, toolchain)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    if accepted:
        assert binaries.go_version() >= (1, 22)
    else:
        with pytest.raises(steps.SetupError, match=r"is too old: Go 1\.26"):
            binaries.go_version()


def test_a_machine_without_go_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(steps.SetupError, match="no `go` on PATH"):
        binaries.go_version()


@pytest.fixture
def installed(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was installed, on a machine without Go on which nothing is built."""
    monkeypatch.setenv("PATH", str(tmp_path))
    done: list[str] = []
    monkeypatch.setattr(packages, "ensure", lambda *, cluster: done.append("Debian packages"))
    monkeypatch.setattr(python, "ensure", lambda: done.append("Python"))
    return done


def test_what_no_package_mends_is_said_in_one_list_before_anything_is_installed(
    installed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(preflight, "MEMORY_GIB", 10_000)
    with pytest.raises(steps.SetupError, match=r"(?s)needs root.*GiB of memory.*no `go` on PATH") as caught:
        setup.everything(cluster=True, purposes=["turn", "cluster"])
    assert "KUBE_CONTEXT" in str(caught.value)
    assert installed == []


def test_whether_the_machine_can_run_the_cluster_is_not_asked_where_it_is_only_installed(
    installed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(steps.SetupError, match="no `go` on PATH") as caught:
        setup.everything(cluster=True)
    assert "root" not in str(caught.value)
    assert installed == []


def test_pythons_packages_alone_need_no_go(installed: list[str]) -> None:
    setup.everything(cluster=False)
    assert installed == ["Debian packages", "Python"]


def test_missing_packages_are_named_where_they_cannot_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "apt-get").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(steps.SetupError, match=r"run as root: apt-get install .*containerd.*runc"):
        packages.ensure(cluster=True)


@pytest.fixture
def debian(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for a Debian with systemd that lacks containerd; apt-get ends as the file `apt-ends` says."""
    (tmp_path / "apt-ends").write_text("0")
    (tmp_path / "enabled").write_text("ssh.service enabled enabled\n")
    scripts = {
        "apt-get": f"""case "$*" in *--simulate*) exit 0 ;; esac
{tmp_path}/policy-rc.d; echo "policy $?" >> {tmp_path}/calls
echo 'containerd.service enabled enabled' >> {tmp_path}/enabled
exit $(cat {tmp_path}/apt-ends)""",
        "systemctl": f"""case $1 in
list-unit-files) sort -u {tmp_path}/enabled ;;
*) echo "$*" >> {tmp_path}/calls ;;
esac""",
    }
    for name, text in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(packages, "_SYSTEMD", tmp_path)
    monkeypatch.setattr(packages, "_POLICY", tmp_path / "policy-rc.d")
    wanted = iter([["containerd"], []])
    monkeypatch.setattr(packages, "missing", lambda *, cluster: next(wanted))
    return tmp_path


def test_services_of_installed_packages_are_neither_started_nor_enabled(debian: Path) -> None:
    packages.ensure(cluster=True)
    assert (debian / "calls").read_text().splitlines() == ["policy 101", "disable containerd.service"]
    assert not (debian / "policy-rc.d").exists()


def test_an_installation_that_fails_leaves_services_as_they_were(debian: Path) -> None:
    (debian / "apt-ends").write_text("100")
    with pytest.raises(steps.SetupError, match=r"apt-get .* ended with 100"):
        packages.ensure(cluster=True)
    assert not (debian / "policy-rc.d").exists()
    assert "disable containerd.service" in (debian / "calls").read_text()


@pytest.mark.parametrize(("text", "stays"), [("#!/bin/sh\nexit 104\n", True), (packages._START_NOTHING, False)])
def test_a_policy_that_somebody_made_stays_and_one_of_a_killed_setup_does_not(
    debian: Path, text: str, stays: bool
) -> None:
    policy = debian / "policy-rc.d"
    policy.write_text(text)
    policy.chmod(0o755)
    packages.ensure(cluster=True)
    assert policy.exists() == stays
    assert (debian / "calls").read_text().startswith("policy 104" if stays else "policy 101")


def test_a_policy_that_a_killed_setup_left_goes_also_when_nothing_is_missing_any_more(
    debian: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = debian / "policy-rc.d"
    policy.write_text(packages._START_NOTHING)
    monkeypatch.setattr(packages, "missing", lambda *, cluster: [])
    packages.ensure(cluster=True)
    assert not policy.exists()


@pytest.fixture(params=[signal.SIGTERM, signal.SIGHUP], ids=lambda it: it.name)
def ending(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    """A signal that ends this process, also where the tests run with nohup."""
    before = signal.signal(request.param, signal.SIG_DFL)
    yield request.param
    signal.signal(request.param, before)


def test_an_installation_that_is_to_end_ends_whole_and_leaves_services_as_they_were(
    debian: Path, ending: signal.Signals
) -> None:
    apt = debian / "apt-get"
    apt.write_text(apt.read_text().replace("exit $(cat", f"kill -{ending.value} $PPID; sleep 0.1\nexit $(cat"))
    with pytest.raises(SystemExit) as ended:
        packages.ensure(cluster=True)
    assert ended.value.code == 128 + ending
    assert (debian / "calls").read_text().splitlines() == ["policy 101", "disable containerd.service"]
    assert not (debian / "policy-rc.d").exists()
    assert signal.getsignal(ending) is signal.SIG_DFL


def test_a_disk_that_is_too_full_is_said_before_anything_is_installed(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(binaries, "missing", lambda: ["kubectl"])
    monkeypatch.setattr(binaries, "go_version", lambda: (1, 26))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 88, int(12e9)))
    setup._check([])
    assert f"{cache} has 12 GB free, 25 may be needed" in capsys.readouterr().err


def test_a_failed_step_shows_the_end_of_its_output(cache: Path) -> None:
    with pytest.raises(steps.SetupError, match="ended with 3") as caught:
        steps.call(["sh", "-c", "echo the reason; exit 3"], "thing")
    assert "the reason" in str(caught.value)
    assert str(cache / "log" / "thing.log") in str(caught.value)


def test_a_step_says_how_long_it_took_the_last_time(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cache / "times.json").write_text('{"thing": 41.6}')
    with steps.timed("thing"):
        pass
    assert "thing, 42 s the last time" in capsys.readouterr().err
    assert steps.last_time("thing") != 41.6


def test_an_interrupted_step_is_not_remembered(cache: Path) -> None:
    with pytest.raises(KeyboardInterrupt), steps.timed("thing"):
        raise KeyboardInterrupt
    assert steps.last_time("thing") is None
