"""How tests are shared out among pytest-xdist's workers: whole groups, and what is left when one of them dies.

xdist's own `loadgroup` writes into what pytest 9.2 computes, and splits the groups.
"""

from pathlib import Path

from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

TESTS = Path(__file__).parent
ALONE = ("embedded_cluster", "kill_matrix")
"""Words in the names of files that need a worker of their own: they have another cluster to break."""


def group(path: Path) -> str:
    """What runs in one worker: a folder of tests with a world in common, a file of unit tests."""
    folder = path.relative_to(TESTS).parts[0]
    if folder == "unit" or any(word in path.name for word in ALONE):
        return str(path)
    return folder


class Groups(LoadScopeScheduling):
    """Hands whole groups to workers."""

    def _split_scope(self, nodeid: str) -> str:
        return group(TESTS.parent / nodeid.partition("::")[0])

    def remove_node(self, node: WorkerController) -> str | None:
        """The test that ended its worker, if one did; the rest of its groups is for others.

        xdist 3.8 gives that test to the next worker, and a run waits for ever when that dies of it too.
        """
        workload = self.assigned_work.pop(node)
        ended = next((test for unit in workload.values() for test, done in unit.items() if not done), None)
        if ended is None:
            return None
        workload[self._split_scope(ended)][ended] = True
        self.workqueue.update({name: unit for name, unit in workload.items() if not all(unit.values())})
        for other in self.assigned_work:
            self._reschedule(other)
        return ended
