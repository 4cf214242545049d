"""One pytest run over what was asked for, on a machine that can run it: `python -m dev.test [PYTEST ARGUMENTS]`.

Says why, and fails, where the machine cannot run the cluster's tests: they are never skipped.
"""

import os
import sys

from dev import paths
from dev.cluster import lifecycle, preflight
from dev.cluster.config import Cluster, ClusterError

_WORKERS = ("-n", "2", "--dist", "loadscope", "--no-loadscope-reorder")
_TESTS = paths.CHECKOUT / "tests"
_INSTANCES = (1, 2)
"""Clusters of the tests' own, beside the one that the environment names."""

_GPU = "gpu"
"""The folder of tests that need CUDA: `make test-gpu` on a machine that has it."""


def _everything() -> list[str]:
    """The folders of tests, those that take longest first: small ones fill what is left at the end."""
    order = {"e2e": 0, "cluster": 1, "training": 2, "unit": 4}
    folders = sorted(
        (p.name for p in _TESTS.iterdir() if p.name != _GPU and any(p.rglob("test_*.py"))),
        key=lambda n: (order.get(n, 3), n),
    )
    return [f"tests/{name}" for name in folders]


def main(arguments: list[str]) -> None:
    """Become pytest; or end with the reason why this machine will not do."""
    try:
        preflight.check(Cluster.from_env(), down=False, turn=True)
    except ClusterError as error:
        raise SystemExit(f"error: the tests on the embedded cluster cannot run here: {error}") from None
    os.environ["PATH"] = os.pathsep.join([*paths.binary_path(), os.environ.get("PATH", os.defpath)])
    for cluster in (Cluster.from_env(), *map(Cluster, _INSTANCES)):
        os.environ.update(lifecycle.beside_the_proxy(cluster))
    os.chdir(paths.CHECKOUT)
    # two cores: what runs beside two such groups makes all of them wait
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *(arguments or [*_WORKERS, *_everything()])])


if __name__ == "__main__":
    main(sys.argv[1:])
