"""The trouble of one watched namespace is that of one."""

import secrets
from collections.abc import Iterator

import pytest
from tests.cluster.operators import Lab, bind, wait_until_healthy

from dpe_api.names import Stage
from dpe_api.status import Phase

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]


def is_there(lab: Lab, namespace: str) -> bool:
    return namespace in [it.metadata.name for it in lab.core.list_namespace().items]


@pytest.fixture
def beside(idle: Lab) -> Iterator[str]:
    """A second namespace that the operator looks after, in which it has its rights."""
    name = f"{idle.namespace}-beside-{secrets.token_hex(2)}"
    idle.core.create_namespace({"metadata": {"name": name}})
    bind(idle, name)
    idle.beside = (name,)
    yield name
    idle.beside = ()
    if is_there(idle, name):
        idle.core.delete_namespace(name)


@pytest.mark.parametrize("limited", [False, True], ids=["no-limit", "limit"])
def test_a_namespace_that_is_deleted_stops_nothing_in_another(idle: Lab, beside: str, limited: bool) -> None:
    if limited:
        idle.platform["limits"] = {"iterationsPerNamespace": 2}
    idle.wish(Stage.DIAGNOSIS, 1, hold=True)
    idle.start()
    wait_until_healthy(idle)
    process = idle.process
    assert process is not None
    idle.create("before")
    idle.until(lambda: idle.status("before").stage_status(Stage.DIAGNOSIS).progress is not None)
    idle.core.delete_namespace(beside)
    idle.until(lambda: not is_there(idle, beside), 120)
    # a watch goes on until it ends by itself, the check of /healthz lists every 30 s
    idle.until(lambda: f"namespace {beside}" in idle.log(), 120)
    assert idle.metric(r"^dpe_stale_iterations [1-9]")
    idle.wish(Stage.DIAGNOSIS, 1)
    idle.until(lambda: idle.status("before").phase is Phase.SUCCEEDED, 180)
    assert process.poll() is None, "the same process all the time"
    # one that starts without the namespace; kopf's first lists of it are answered 403
    idle.restart()
    wait_until_healthy(idle)
    idle.create("after")
    idle.until(lambda: idle.status("after").phase is Phase.SUCCEEDED, 240)
    restarted = idle.process
    assert restarted is not None
    assert restarted.poll() is None
