"""Many iterations, few at once: `python -m tests.bench.operator.through --iterations 1000 --at-once 50`. As root.

On a cluster as in scale.py new iterations are created as others end; the operator deletes each when its time to live is
over. Every one must succeed with one attempt for each stage, and leave nothing behind. Prints what one costs, by
process, and the operator's memory from the first tenth to the last. Parts of a long run: --first numbers on, --for-s
seconds in which new ones are created, and each part adds its line to the file of --rows.
"""

import argparse
import asyncio
import json
import math
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dev.cluster.config import Cluster as Instance
from tests.bench.operator.playing import Cluster, Players
from tests.bench.operator.scale import NAMESPACE, Operator, Shares, difference, on_own_instance, prepare, until
from tests.unit.operator import given

from dpe_api.names import API_VERSION, KIND, LABEL_ITERATION, PLURAL, Stage

TTL_S = 5
LOOK_S = 30
"""Seconds after which an iteration is asked for by name: its deletion may fall between two watches."""
TELL_S = 60
"""Seconds between two lines of progress."""


@dataclass
class Feeder:
    """Creates iterations, as many as may live at once."""

    cluster: Cluster
    players: Players
    names: list[str]
    at_once: int
    for_s: float
    """In which new ones are created."""
    created: list[str] = field(default_factory=list)
    rss_mib: list[float] = field(default_factory=list)
    """The operator's, at the end of each iteration."""

    async def feed(self, operator: Operator, limit_s: float) -> None:
        """Until all are gone; SystemExit with those that are stuck."""
        waiting, ends = iter(self.names), time.monotonic() + self.for_s
        await asyncio.gather(*(self._line(waiting, ends, operator, limit_s) for _ in range(self.at_once)))

    async def _line(self, waiting: Iterator[str], ends: float, operator: Operator, limit_s: float) -> None:
        spec = given.spec(ttlSecondsAfterFinished=TTL_S).wire()
        while time.monotonic() < ends and (name := next(waiting, None)) is not None:
            self.created.append(name)
            self.players.release(name)
            body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec}
            await self.cluster.call("POST", self.cluster.path(PLURAL), body)
            await self._until_gone(name, limit_s)
            self.rss_mib.append(operator.rss_mib())

    async def _until_gone(self, name: str, limit_s: float) -> None:
        began = looked = time.monotonic()
        while name not in self.players.gone:
            now = time.monotonic()
            if now - began > limit_s:
                where = sorted(key for key in self.players.moments if key[0] == name)
                raise SystemExit(f"{name} is stuck: {self.players.phases.get(name)}, {where}")
            if now - looked > LOOK_S:
                looked = now
                found = await self.cluster.call("GET", f"{self.cluster.path(PLURAL)}/{name}")
                if found.get("code") == 404:
                    self.players.gone.add(name)
            await asyncio.sleep(0.2)

    async def tell(self) -> None:
        """Progress on standard error, for ever."""
        began = time.monotonic()
        while True:
            await asyncio.sleep(TELL_S)
            print(
                f"{time.monotonic() - began:.0f} s: {len(self.rss_mib)} of {len(self.names)} are through, "
                f"the operator has {self.rss_mib[-1] if self.rss_mib else 0:.0f} MiB",
                file=sys.stderr,
                flush=True,
            )


async def left_over(cluster: Cluster) -> dict[str, int]:
    """How much of each kind is still there of iterations that are gone."""
    found = {PLURAL: len((await cluster.call("GET", cluster.path(PLURAL)))["items"])}
    core = f"/api/v1/namespaces/{NAMESPACE}"
    paths = {"jobs": cluster.path("jobs"), "pods": cluster.path("pods")}
    paths |= {kind: f"{core}/{kind}" for kind in ("configmaps", "services")}
    for kind, path in paths.items():
        found[kind] = len((await cluster.call("GET", path, labelSelector=LABEL_ITERATION))["items"])
    return found


def tenths(values: list[float]) -> list[int]:
    """Median of each tenth."""
    size = max(1, len(values) // 10)
    return [round(statistics.median(values[i : i + size])) for i in range(0, len(values), size)][:10]


def found_of(players: Players, names: list[str]) -> dict[str, Any]:
    """What became of the iterations; all of it is wrong but the phase Succeeded."""
    return {
        "phases": dict(Counter(players.phases.get(name, "never seen") for name in names)),
        "not_deleted": sum(name not in players.gone for name in names),
        "jobs_missing": sum((name, stage) not in players.attempts for name in names for stage in Stage),
        "jobs_beyond_the_first_attempt": sum(attempt > 1 for attempt in players.attempts.values()),
    }


async def measure(arguments: argparse.Namespace, instance: Instance, folder: Path) -> dict[str, Any]:
    """All figures."""
    store, operator = prepare(instance), Operator(instance, folder)
    names = [f"i{n}" for n in range(arguments.first, arguments.first + arguments.iterations)]
    async with Cluster(instance.kubeconfig, NAMESPACE) as cluster:
        players = Players(cluster, store)
        playing = asyncio.create_task(players.play())
        try:
            operator.start()
            await until(lambda: operator.metric("process_cpu_seconds_total") > 0, 60, lambda: "no operator", playing)
            assert operator.process is not None
            feeder = Feeder(cluster, players, names, arguments.at_once, arguments.for_s)
            before, shares, began = operator.state(), Shares(instance, operator.process), time.monotonic()
            feeding = asyncio.create_task(feeder.feed(operator, arguments.limit_s))
            telling = asyncio.create_task(feeder.tell())
            await asyncio.wait([feeding, playing, telling], return_when=asyncio.FIRST_COMPLETED)
            telling.cancel()
            await (feeding if feeding.done() else playing)
            seconds, after, names = time.monotonic() - began, operator.state(), feeder.created
            spent_s = shares.spent_s()
            last: dict[str, int] = {}
            for _ in range(60):  # the garbage collector follows
                last = await left_over(cluster)
                if not any(last.values()):
                    break
                await asyncio.sleep(1)
            row = {
                "first": arguments.first,
                "iterations": len(names),
                "at_once": arguments.at_once,
                "processors": os.cpu_count(),
                "seconds": round(seconds, 1),
                "operator_per_iteration": difference(before, after, len(names)),
                "cpu_s_per_iteration": {name: round(s / len(names), 3) for name, s in spent_s.items()},
                "rss_mib_by_tenths": tenths(feeder.rss_mib),
                **found_of(players, names),
                "left_over": last,
                "reconcile_errors": after["errors"],
                "faults_of_the_players": players.faults[:5],
            }
            if arguments.rows is not None:
                with arguments.rows.open("a") as rows:
                    rows.write(json.dumps(row) + "\n")
            return row
        finally:
            playing.cancel()
            operator.stop()


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=1000, help="all of them (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first (default: %(default)s)")
    parser.add_argument("--rows", type=Path, help="file of JSON lines to which the figures are added")
    parser.add_argument("--at-once", type=int, default=50, help="that live at once at most (default: %(default)s)")
    parser.add_argument("--for-s", type=float, default=math.inf, help="no new ones after that long")
    parser.add_argument("--limit-s", type=float, default=900, help="longest life of one (default: %(default)s)")
    parser.add_argument("--instance", type=int, default=3, help="number of the embedded cluster")
    arguments = parser.parse_args()
    on_own_instance(measure, arguments)


if __name__ == "__main__":
    main()
