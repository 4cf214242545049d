"""The output of `decide`: what to do now, and when to look again."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from dpe_api.names import Stage
from dpe_api.status import Status
from dpe_operator.platform import KubernetesObject

ChildKind = Literal["ConfigMap", "Service", "Job"]


@dataclass(frozen=True, slots=True)
class Child:
    """An object to create."""

    kind: ChildKind
    name: str
    body: KubernetesObject


@dataclass(frozen=True, slots=True)
class ChildRef:
    """A Job to delete, together with the ConfigMap and Service of the same name. `uid`: only this very Job."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Note:
    """A Kubernetes Event. Equal keys are one event, however often they are planned."""

    reason: str
    message: str
    key: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Charge:
    """GPU time of one attempt."""

    stage: Stage
    pool: str
    gpu_seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now: create, note, write the status, delete, in this order.

    Applying a plan twice changes nothing the second time. An operator that dies anywhere in between leaves a state
    from which the next one decides the same.
    """

    create: tuple[Child, ...] = ()
    delete: tuple[ChildRef, ...] = ()
    status: Status | None = None
    """None: nothing to write."""
    notes: tuple[Note, ...] = ()
    charges: tuple[Charge, ...] = ()
    """Of attempts that have ended; the new status holds them already."""
    running: tuple[Charge, ...] = ()
    """Of attempts that go on, up to now; no status holds them."""
    remove_iteration: bool = False
    """Its time to live is over."""
    look_again_in: timedelta | None = None
    """None: only when something happens."""
