"""What the operator knows about one run, and what it plans for it, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from dpe_api.run_status import RunStatus
from dpe_api.status import Status
from dpe_operator.plan import Note
from dpe_operator.platform import KubernetesObject
from dpe_operator.world import Run


@dataclass(frozen=True, slots=True)
class RoundSeen:
    """A DPEIteration of this run."""

    name: str
    uid: str
    round: int
    retry: int = 0
    status: Status = field(default_factory=Status)
    reference: str | None = None
    """Name of the iteration that it continues from."""
    seed: int | None = None
    """Its spec.seed."""
    suspended: bool = False
    """Its spec.suspend."""
    suspended_by_run: bool = False
    """Its spec.suspend is the run's doing."""
    deleting: bool = False


@dataclass(frozen=True, slots=True)
class RunSeen:
    """Everything that was seen."""

    run: Run
    rounds: tuple[RoundSeen, ...] = ()
    foreign: frozenset[str] = frozenset()
    """Names of iterations that exist and belong to somebody else."""
    not_admitted: Mapping[str, str] = field(default_factory=dict)
    """What the API server said when it did not take the next iteration, by that one's name."""

    def named(self, name: str) -> RoundSeen | None:
        """The run's iteration of a name."""
        return next((r for r in self.rounds if r.name == name), None)


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What to do now: create, suspend, note, write the status, delete, in this order.

    Applying a plan twice changes nothing the second time.
    """

    create: KubernetesObject | None = None
    """The DPEIteration of the next round."""
    suspend: tuple[RoundSeen, bool] | None = None
    """An iteration, and whether its spec.suspend is to be true."""
    delete: RoundSeen | None = None
    """An iteration that has not begun and never will."""
    status: RunStatus | None = None
    """None: nothing to write."""
    notes: tuple[Note, ...] = ()
    remove_run: bool = False
    """Its time to live is over."""
    look_again_in: timedelta | None = None
    """None: only when something happens."""
