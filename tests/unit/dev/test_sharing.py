"""How test runs find and leave the cluster that they share, with an etcd and a kubectl that are only pretended."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from dev import paths
from dev.cluster import lifecycle
from dev.cluster.config import Cluster
from dev.cluster.processes import Processes
from tests import sharing

GONE = "4194305"  # no process has this id: it is above the kernel's limit


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """One that is not up."""
    monkeypatch.setenv("DPE_CACHE", str(tmp_path))
    it = Cluster(4)
    monkeypatch.setattr(lifecycle, "is_up", lambda cluster: Processes(cluster).alive("etcd") is not None)
    yield it
    Processes(it).stop("etcd")


def start(cluster: Cluster, *namespaces: str) -> None:
    """Bring it up, with these namespaces beside those that are always there."""
    Processes(cluster).prepare()
    Processes(cluster).start("etcd", ["sleep", "600"])
    kubectl = paths.binary("kubectl")
    kubectl.parent.mkdir(parents=True, exist_ok=True)
    names = " ".join(f"namespace/{name}" for name in ("default", "kube-system", "kube-public", *namespaces))
    kubectl.write_text(f"#!/bin/sh\nprintf '%s\\n' {names}\n")
    kubectl.chmod(0o755)


def killed_run(cluster: Cluster, *namespaces: str) -> None:
    """A run of tests that starts the cluster and never says that it has ended."""
    with sharing.alone(cluster) as users:
        sharing.arrive(cluster, users)
        start(cluster, *namespaces)
        sharing.use(cluster, users)
        next(users.glob("*.pid")).rename(users / f"{GONE}.pid")


def run(cluster: Cluster) -> tuple[bool, bool]:
    """A run of tests that ends as it should: whether it takes the cluster down, and whether it keeps the data."""
    with sharing.alone(cluster) as users:
        sharing.arrive(cluster, users)
        start(cluster)
        sharing.use(cluster, users)
        return sharing.leave(users), (users / "had-state").exists()


def test_a_cluster_that_was_up_stays_up(cluster: Cluster) -> None:
    start(cluster)
    assert run(cluster)[0] is False


def test_a_cluster_that_was_not_there_is_taken_down_with_its_data(cluster: Cluster) -> None:
    assert run(cluster) == (True, False)


def test_what_a_killed_run_started_is_taken_down_by_the_next_one(cluster: Cluster) -> None:
    killed_run(cluster, "t-0123abcd", "e2e-01abef")
    assert run(cluster) == (True, False)


def test_what_a_killed_run_found_up_stays_up_after_the_next_one(cluster: Cluster) -> None:
    start(cluster)
    killed_run(cluster)
    assert run(cluster)[0] is False


def test_what_a_killed_run_left_and_somebody_has_used_since_stays_up(cluster: Cluster) -> None:
    killed_run(cluster, "t-0123abcd")
    start(cluster, "dpe")
    assert run(cluster)[0] is False


def test_a_cluster_that_somebody_started_after_a_killed_run_stays_up(cluster: Cluster) -> None:
    killed_run(cluster)
    Processes(cluster).stop("etcd")
    start(cluster)
    assert run(cluster)[0] is False


def test_what_a_run_was_killed_in_the_middle_of_starting_is_taken_down_by_the_next_one(cluster: Cluster) -> None:
    with sharing.alone(cluster) as users:
        sharing.arrive(cluster, users)
        start(cluster)
    assert run(cluster) == (True, False)


def test_a_start_that_fails_leaves_nothing_but_what_was_up_before(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    down: list[bool] = []
    monkeypatch.setattr(lifecycle, "down", lambda _, keep: down.append(keep))
    with sharing.alone(cluster) as users:
        sharing.arrive(cluster, users)
        start(cluster)
        sharing.give_up(cluster, users)
        assert down == [False]
        sharing.arrive(cluster, users)
        sharing.give_up(cluster, users)
        assert down == [False], "this one was up"


def test_the_last_of_several_runs_takes_the_cluster_down(cluster: Cluster) -> None:
    with sharing.alone(cluster) as users:
        (users / "1.pid").touch()
        start(cluster)
        sharing.arrive(cluster, users)
        sharing.use(cluster, users)
        assert not sharing.leave(users)
        (users / "1.pid").unlink()
    assert not (users / "was-up").exists()


def test_two_runs_do_not_break_one_instance_at_once(cluster: Cluster) -> None:
    refused = pytest.raises(pytest.fail.Exception, match=r"another run .* uses instance 4")
    with sharing.own(cluster), refused, sharing.own(cluster):
        pass
    with sharing.own(cluster):
        pass
