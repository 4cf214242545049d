"""How test runs share this machine's embedded clusters: who uses one, how it was found, and whose another one is."""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dev.cluster import lifecycle
from dev.cluster.config import Cluster
from dev.cluster.control_plane import kubectl
from dev.cluster.processes import Processes

_NOT_A_PERSONS = re.compile(r"default|kube-.*|(t|e2e)-[0-9a-f]+")
"""Namespaces that every cluster has, and those that tests make."""


@contextmanager
def alone(it: Cluster) -> Iterator[Path]:
    """Whoever holds this may start or stop the cluster; gives the folder in which the workers say that they use it."""
    users = it.state.with_name(it.state.name + ".tests")
    users.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (users / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield users


@contextmanager
def own(it: Cluster) -> Iterator[None]:
    """An instance for one run of tests, which breaks it and takes it down; fails where another run has it."""
    it.state.parent.mkdir(parents=True, exist_ok=True)
    path = it.state.with_name(it.state.name + ".tests.lock")
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pytest.fail(
                f"another run of the tests uses instance {it.instance} ({path}): start this one when it has ended"
            )
        yield


def _running(it: Cluster) -> str:
    """Which etcd runs, and so which cluster: another text after every start. Empty: none."""
    return (it.run / "etcd").read_text() if Processes(it).alive("etcd") else ""


def _was_left(it: Cluster, users: Path) -> bool:
    """Whether the cluster is one that a run of tests started before it was killed, and that nobody has used since."""
    started, running = users / "started", _running(it)
    is_that = running and started.exists() and started.read_text() == running
    if not is_that and not (users / "starting").exists():
        return False
    found = kubectl(it, "get", "namespaces", "-o", "name", check=False)
    names = [line.removeprefix("namespace/") for line in found.stdout.split()]
    return found.returncode == 0 and all(_NOT_A_PERSONS.fullmatch(name) for name in names)


def arrive(it: Cluster, users: Path) -> None:
    """Write down how the first user finds the cluster; one that a killed run left counts as that run found it."""
    for user in users.glob("*.pid"):
        if not Path(f"/proc/{user.stem}").exists():  # killed before it could say so
            user.unlink()
    if any(users.glob("*.pid")) or _was_left(it, users):
        return
    for name, holds in (("was-up", lifecycle.is_up(it)), ("had-state", it.state.exists())):
        (users / name).unlink(missing_ok=True)
        if holds:
            (users / name).touch()
    (users / "started").unlink(missing_ok=True)
    (users / "starting").unlink(missing_ok=True)
    if not (users / "was-up").exists() and not (users / "had-state").exists():
        (users / "starting").touch()  # a run that is killed in the middle of it has nothing else to tell it by


def use(it: Cluster, users: Path) -> None:
    """Say that this process uses the cluster, which is up."""
    (users / f"{os.getpid()}.pid").touch()
    if not (users / "was-up").exists():
        (users / "started").write_text(_running(it))
    (users / "starting").unlink(missing_ok=True)


def give_up(it: Cluster, users: Path) -> None:
    """Undo a start that did not succeed, unless the cluster was up before or somebody uses it."""
    if not any(users.glob("*.pid")) and not (users / "was-up").exists():
        lifecycle.down(it, keep=(users / "had-state").exists())
        (users / "starting").unlink(missing_ok=True)


def leave(users: Path) -> bool:
    """Say that this process does not use it any more; whether it is to be taken down."""
    (users / f"{os.getpid()}.pid").unlink()
    return not any(users.glob("*.pid")) and not (users / "was-up").exists()
