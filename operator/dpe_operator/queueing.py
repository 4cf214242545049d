"""Who may run where the platform limits how many iterations run at once: by priority, then by age. Pure.

A place is held from the acceptance of an iteration to its end, and given up while it is suspended. The order needs
nothing but what the API server holds, so that an operator that starts anew continues the same queue.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from dpe_api.serving_spec import Serving
from dpe_api.status import Phase
from dpe_api.training_spec import Training
from dpe_operator.platform import Platform

_DEFAULT_POOLS = {"serving": Serving().pool, "training": Training().pool}
_FINAL = {phase.value for phase in Phase if phase.is_final}


class Standing(StrEnum):
    """How an iteration stands to the queue."""

    RUNS = "runs"
    WAITS = "waits"
    UNSEEN = "unseen"
    """Nobody has looked at it yet: it may have a better right to the next place than those who ask for it."""
    OUT = "out"
    """It has ended, is suspended, or cannot start for another reason."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One iteration."""

    namespace: str
    name: str
    priority: int
    created: datetime
    pools: frozenset[str]
    standing: Standing

    @property
    def order(self) -> tuple[int, datetime, str, str]:
        """Sorts those who wait: the highest priority first, then the oldest."""
        return (-self.priority, self.created, self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an iteration stands among those that want the same."""

    position: int
    """From 1."""
    why: str
    """What it waits for; empty: it may run."""

    @property
    def is_free(self) -> bool:
        """It may run."""
        return not self.why


_Key = tuple[str, str]
"""("namespace", its name) or ("pool", its name): what a limit is about."""


def is_limited(platform: Platform) -> bool:
    """Whether there is any limit at all."""
    return platform.limits.iterations_per_namespace is not None or any(
        pool.max_iterations is not None for pool in platform.pools.values()
    )


def _limits(entry: Entry, platform: Platform) -> dict[_Key, int]:
    """The limits that count an iteration."""
    pools = {name: platform.pools[name].max_iterations for name in sorted(entry.pools) if name in platform.pools}
    limits: dict[_Key, int | None] = {("namespace", entry.namespace): platform.limits.iterations_per_namespace}
    limits |= {("pool", name): maximum for name, maximum in pools.items()}
    return {key: maximum for key, maximum in limits.items() if maximum is not None}


def place(own: Entry, others: Iterable[Entry], platform: Platform) -> Place:
    """Whether `own` may run beside the others.

    Everybody before it in the queue keeps a place free of each limit that both want, also while another pool holds
    that one back: who waits for two pools is not overtaken for ever by those who want one. Who waits for a place of
    the own namespace keeps none of the pools, which others share.
    """
    limits = _limits(own, platform)
    others = [entry for entry in others if (entry.namespace, entry.name) != (own.namespace, own.name)]
    running = _running(others, platform)
    taken, before = running.copy(), 0
    for entry in _waiting(others):
        if entry.order >= own.order:
            break
        keeps = _keeps(entry, taken, platform)
        taken.update(keeps)
        # beside those whose places are kept: who waits for the same namespace
        shared = limits.keys() & (keeps | {_namespace(entry)})
        before += bool(shared)
    full = [
        f"{key[0]} {key[1]} runs {running[key]} of at most {maximum} iterations"
        for key, maximum in limits.items()
        if taken[key] >= maximum
    ]
    return Place(before + 1, "; ".join(full))


def _namespace(entry: Entry) -> _Key:
    return "namespace", entry.namespace


def _running(entries: Iterable[Entry], platform: Platform) -> Counter[_Key]:
    """How many run, by what counts them."""
    return Counter(key for e in entries if e.standing is Standing.RUNS for key in _limits(e, platform))


def _waiting(entries: Iterable[Entry]) -> list[Entry]:
    """Those that wait, first come first."""
    waiting = (e for e in entries if e.standing in (Standing.WAITS, Standing.UNSEEN))
    return sorted(waiting, key=lambda e: e.order)


def _keeps(entry: Entry, taken: Counter[_Key], platform: Platform) -> set[_Key]:
    """The limits of which one that waits keeps a place free, after what is taken; none while its namespace is full."""
    limits, own = _limits(entry, platform), _namespace(entry)
    return set() if own in limits and taken[own] >= limits[own] else set(limits)


def called(entries: Iterable[Entry], platform: Platform) -> list[Entry]:
    """Those that wait and may run now, as `place` says of each, first come first."""
    entries = list(entries)
    taken, found = _running(entries, platform), []
    for entry in _waiting(entries):
        free = all(taken[key] < maximum for key, maximum in _limits(entry, platform).items())
        if entry.standing is Standing.WAITS and free:
            found.append(entry)
        taken.update(_keeps(entry, taken, platform))
    return found


def _standing(status: dict[str, Any]) -> Standing:
    if not status:
        return Standing.UNSEEN
    if status.get("phase") in _FINAL:
        return Standing.OUT
    if status.get("queue") is not None:
        return Standing.WAITS
    if status.get("resolved") is None or status.get("phase") == Phase.SUSPENDED:
        return Standing.OUT
    return Standing.RUNS


def entry_of(body: dict[str, Any]) -> Entry:
    """An iteration as the API server has it; of one that nobody has looked at, with the pools that it names itself."""
    metadata, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    wanted = (status.get("resolved") or {}).get("spec") or spec
    pools = (status.get("queue") or {}).get("pools")
    if pools is None:
        pools = [(wanted.get(part) or {}).get("pool", default) for part, default in _DEFAULT_POOLS.items()]
    return Entry(
        namespace=metadata["namespace"],
        name=metadata["name"],
        priority=spec.get("priority") or 0,
        created=datetime.fromisoformat(metadata["creationTimestamp"]),
        pools=frozenset(pools),
        standing=_standing(status),
    )


class Queue:
    """All iterations that run or wait, as this process knows them; whoever writes a status tells it first."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._entries: dict[tuple[str, str], Entry] = {}
        self.is_limited = is_limited(platform)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Those that run or wait; empty where nothing is limited."""
        return tuple(self._entries.values())

    def knows(self, namespace: str, name: str) -> bool:
        """Whether it runs or waits."""
        return (namespace, name) in self._entries

    def put(self, body: dict[str, Any]) -> bool:
        """Take in what an iteration is now. True: others may run now who could not before."""
        if not self.is_limited:
            return False
        entry = entry_of(body)
        if "deletionTimestamp" in body["metadata"] and not self.knows(entry.namespace, entry.name):
            return False  # nobody would tell when it is gone
        if entry.standing is Standing.OUT:
            return self.drop(entry.namespace, entry.name)
        old = self._entries.get((entry.namespace, entry.name))
        self._entries[entry.namespace, entry.name] = entry
        return old is not None and old != entry and entry.standing is not Standing.RUNS

    def drop(self, namespace: str, name: str) -> bool:
        """Forget one that has ended or is gone. True: others may run now."""
        return self._entries.pop((namespace, name), None) is not None

    def called(self) -> list[Entry]:
        """Those who wait and may run now."""
        return called(self._entries.values(), self._platform)
