"""How the operator does with many iterations: `python -m tests.bench.operator.scale --live 1000`. As root.

A real API server, controller manager and MinIO of their own; scheduler, nodes and stages are played (playing.py). All
iterations are applied at once and live until every one runs its diagnosis; then, with all others alive, some go through
to their end one after the other (hand-offs are timed); the operator is restarted; and at last all run through.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from dev.cluster import lifecycle, object_store
from dev.cluster.config import CONTROL_PLANE
from dev.cluster.config import Cluster as Instance
from dev.cluster.processes import Processes
from kubernetes import client, config
from tests.bench.operator.playing import Cluster, Players
from tests.cluster.operators import free_port
from tests.unit.operator import given

from dpe_api.launch import StoreAddress
from dpe_api.names import API_VERSION, GROUP, KIND, PLURAL, Stage
from dpe_jobs.store import Store

NAMESPACE = "bench"
CRD = Path(__file__).parents[3] / "crds" / "dpe.dev_dpeiterations.yaml"
HAND_OFFS = {
    "diagnosis over -> generation": (Stage.DIAGNOSIS, "over", Stage.GENERATION),
    "model server's pods gone -> training": (Stage.SERVE_BASE, "gone", Stage.TRAINING),
    "training over -> model server": (Stage.TRAINING, "over", Stage.SERVE_CANDIDATE),
    "model server ready -> evaluation": (Stage.SERVE_CANDIDATE, "over", Stage.EVALUATION),
    "model server's pods gone -> end": (Stage.SERVE_CANDIDATE, "gone", "end"),
}
"""What is the operator's: from what it waits for to what it does then."""
WHOLE = {
    "generation over -> training": (Stage.GENERATION, "over", Stage.TRAINING),
    "evaluation over -> end": (Stage.EVALUATION, "over", "end"),
}
"""With the time that Kubernetes takes to delete the model server's pods in between."""
Kinds = Mapping[str, tuple[Stage, str, Stage | str]]


def cpu_s(process: psutil.Process) -> float:
    """Seconds of processor time that a process has used."""
    used = process.cpu_times()
    return float(used.user + used.system)


class Shares:
    """Processors that everything on this machine keeps busy, from here to `used`."""

    def __init__(self, instance: Instance, operator: psutil.Process) -> None:
        pids = {name: Processes(instance).alive(name) for name in (*CONTROL_PLANE[:3], "minio")}
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items() if pid}
        self._processes |= {"operator": operator, "this bench": psutil.Process()}
        self._before, self._began = self._now(), time.monotonic()

    def _now(self) -> dict[str, float]:
        all_of_it = psutil.cpu_times()
        found = {name: cpu_s(process) for name, process in self._processes.items()}
        return found | {"the machine": sum(all_of_it) - all_of_it.idle - all_of_it.iowait}

    def spent_s(self) -> dict[str, float]:
        """Seconds of processor time by process."""
        return {name: value - self._before[name] for name, value in self._now().items()}

    def used(self) -> dict[str, float]:
        """Mean by process."""
        seconds = time.monotonic() - self._began
        return {name: round(spent / seconds, 2) for name, spent in self.spent_s().items()}


class Operator:
    """The operator's process."""

    def __init__(self, instance: Instance, folder: Path) -> None:
        user = object_store.credentials(instance)
        self._environment = {
            **os.environ,
            "KUBECONFIG": str(instance.kubeconfig),
            "DPE_S3_ACCESS_KEY": user.access_key,
            "DPE_S3_SECRET_KEY": user.secret_key,
            "MALLOC_ARENA_MAX": "2",  # as in the chart
        }
        facts = given.platform(
            objectStore={"endpoint": instance.s3_endpoint, "bucket": "dpe", "credentialsSecret": "store"}
        )
        (folder / "platform.yaml").write_text(yaml.safe_dump(facts.wire()))
        self._folder, self._port = folder, free_port()
        self.process: psutil.Popen | None = None

    def start(self) -> None:
        """Start it."""
        command = [sys.executable, "-m", "dpe_operator", "--namespace", NAMESPACE]
        command += ["--platform", str(self._folder / "platform.yaml")]
        command += ["--metrics-port", str(self._port), "--health-port", str(free_port())]
        with (self._folder / "operator.log").open("ab") as log:
            self.process = psutil.Popen(command, env=self._environment, stdout=log, stderr=subprocess.STDOUT)

    def stop(self) -> None:
        """Kill it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def metric(self, name: str) -> float:
        """Sum of a metric's series; 0 while it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=5) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return 0.0
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + "{", name + " ")))

    def rss_mib(self) -> float:
        """Memory that it holds now."""
        assert self.process is not None
        return float(self.process.memory_info().rss / 2**20)

    def state(self) -> dict[str, float]:
        """What it has used so far."""
        assert self.process is not None
        return {
            "cpu_s": cpu_s(self.process),
            "rss_mib": self.rss_mib(),
            "requests": self.metric("dpe_api_requests_total"),
            "errors": self.metric("dpe_reconcile_errors_total"),
        }


def prepare(instance: Instance) -> Store:
    """Namespace, definition, Secret and inputs."""
    api = config.new_client_from_config(str(instance.kubeconfig))
    core, extensions = client.CoreV1Api(api), client.ApiextensionsV1Api(api)
    if NAMESPACE in [n.metadata.name for n in core.list_namespace().items]:
        raise SystemExit(f"namespace {NAMESPACE} is there already: take the instance down first")
    extensions.create_custom_resource_definition(yaml.safe_load(CRD.read_text()))
    while not (extensions.read_custom_resource_definition(f"{PLURAL}.{GROUP}").status.conditions or [])[1:]:
        time.sleep(0.1)  # NamesAccepted, then Established
    time.sleep(1)  # until it is served
    core.create_namespace({"metadata": {"name": NAMESPACE}})
    user = object_store.credentials(instance)
    keys = {"accessKey": user.access_key, "secretKey": user.secret_key}
    core.create_namespaced_secret(NAMESPACE, {"metadata": {"name": "store"}, "stringData": keys})
    store = Store(StoreAddress(endpoint=instance.s3_endpoint), user.access_key, user.secret_key)
    for path in ("models/base/config.json", "data/probe/p.parquet", "data/test/p.parquet"):
        store.put(f"s3://dpe/{path}", b"{}")
    return store


async def until(
    what: Callable[[], bool],
    limit_s: float,
    why: Callable[[], str],
    playing: asyncio.Task[None],
    *,
    every_s: float = 0.1,
) -> float:
    """Seconds until it held; SystemExit when it takes too long. What ended the playing is raised."""
    began = time.monotonic()
    while not what():
        if playing.done():
            playing.result()
        if time.monotonic() - began > limit_s:
            raise SystemExit(f"not within {limit_s:.0f} s: {why()}")
        await asyncio.sleep(every_s)
    return time.monotonic() - began


def between(players: Players, names: list[str], kinds: Kinds) -> dict[str, list[float]]:
    """Seconds by kind; KeyError when a moment was not seen."""
    moments = players.moments
    return {
        kind: [max(0.0, moments[name, after, "created"] - moments[name, before, what]) for name in names]
        for kind, (before, what, after) in kinds.items()
    }


def quantiles(values: list[float]) -> dict[str, float]:
    """p50, p99 and the worst, in seconds."""
    cuts = statistics.quantiles(values, n=100, method="inclusive") if len(values) > 1 else values * 99
    return {"n": len(values), "p50": round(cuts[49], 3), "p99": round(cuts[98], 3), "max": round(max(values), 3)}


def difference(before: dict[str, float], after: dict[str, float], per: float) -> dict[str, float]:
    """CPU time and requests between two states, per something."""
    return {
        "cpu_ms_each": round(1000 * (after["cpu_s"] - before["cpu_s"]) / per, 2),
        "requests_each": round((after["requests"] - before["requests"]) / per, 2),
    }


@dataclass
class Measurement:
    """The parts of it, in their order; each adds its figures."""

    arguments: argparse.Namespace
    instance: Instance
    cluster: Cluster
    operator: Operator
    players: Players
    playing: asyncio.Task[None]
    log: Path
    """The operator's."""
    figures: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = [f"i{n}" for n in range(self.arguments.live)]
        self.last = self.names[: self.arguments.through]

    def _living(self) -> int:
        return sum(1 for name in self.names if (name, Stage.DIAGNOSIS, "created") in self.players.moments)

    def _why(self) -> str:
        phases = sorted(set(self.players.phases.values()))
        return f"{self._living()} live; {phases}; {self.players.faults[:3]}; {self.log.read_text()[-3000:]}"

    def _over(self, names: list[str]) -> bool:
        return all((name, "end", "created") in self.players.moments for name in names)

    async def _until(self, what: Callable[[], bool], limit_s: float | None = None, every_s: float = 0.1) -> float:
        limit_s = self.arguments.limit_s if limit_s is None else limit_s
        return await until(what, limit_s, self._why, self.playing, every_s=every_s)

    async def begin(self) -> None:
        """Apply all at once, and wait until every one runs its diagnosis."""
        self.operator.start()
        await self._until(lambda: self.operator.metric("process_cpu_seconds_total") > 0, 60)
        before, spec, slots = self.operator.state(), given.spec().wire(), asyncio.Semaphore(16)

        async def create(name: str) -> None:
            body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec}
            async with slots:
                await self.cluster.call("POST", self.cluster.path(PLURAL), body)

        await asyncio.gather(*(create(name) for name in self.names))
        took = await self._until(lambda: self._living() == len(self.names))
        self.figures["all_live_after_s"] = round(took, 1)
        self.figures["start_of_one"] = difference(before, self.operator.state(), len(self.names))

    async def quiet(self) -> None:
        """What the operator uses while nothing happens."""
        # what the Job controller is late with is no part of it
        await self._until(lambda: time.monotonic() - self.players.heard > 15)
        before, quiet_since, seconds = self.operator.state(), self.players.heard, self.arguments.quiet_s
        await asyncio.sleep(seconds)
        after = self.operator.state()
        self.figures["quiet_was_disturbed"] = self.players.heard != quiet_since
        self.figures["quiet_per_iteration_and_minute"] = difference(before, after, len(self.names) * seconds / 60)
        self.figures["quiet_cpu_share"] = round((after["cpu_s"] - before["cpu_s"]) / seconds, 3)

    async def hand_offs(self) -> None:
        """Some go through to their end, one after the other, while all others live."""
        timed = self.names[: self.arguments.timed]
        assert self.operator.process is not None
        before, shares = self.operator.state(), Shares(self.instance, self.operator.process)
        for name in timed:
            self.players.release(name)
            await asyncio.sleep(1 / self.arguments.rate)
        await self._until(lambda: self._over(timed))
        found = between(self.players, timed, HAND_OFFS)
        self.figures["hand_offs_s"] = {kind: quantiles(values) for kind, values in found.items()}
        self.figures["hand_offs_s"]["all"] = quantiles([v for values in found.values() for v in values])
        whole = between(self.players, timed, WHOLE)
        self.figures["with_the_server_stopped_s"] = {kind: quantiles(values) for kind, values in whole.items()}
        self.figures["per_hand_off"] = difference(before, self.operator.state(), len(HAND_OFFS) * len(timed))
        self.figures["processors_busy"] = shares.used()

    async def restart(self) -> None:
        """Seconds until an operator that was killed knows all of them again."""
        self.figures["rss_mib_before_restart"] = round(self.operator.rss_mib())
        self.operator.stop()
        self.operator.start()
        began = time.monotonic()
        await self._until(lambda: self.operator.metric("dpe_iterations") >= len(self.names), 300, every_s=1)
        self.figures["start_up_s"] = round(time.monotonic() - began, 1)

    async def run_through(self) -> None:
        """All at once to their end; the operator's memory meanwhile."""
        before, rss = self.operator.state(), list[float]()
        for name in self.last:
            self.players.release(name)

        def over() -> bool:
            rss.append(self.operator.rss_mib())
            return self._over(self.last)

        took = await self._until(over)
        through = {"iterations": len(self.last), "seconds": round(took, 1)}
        self.figures["run_through"] = through | difference(before, self.operator.state(), len(self.last))
        tenth = max(1, len(rss) // 10)
        self.figures["rss_mib"] = {
            "first_tenth": round(statistics.median(rss[:tenth])),
            "last_tenth": round(statistics.median(rss[-tenth:])),
            "max": round(max(rss)),
        }

    def count(self) -> None:
        """What became of them: all of it is wrong but the phase Succeeded."""
        attempts = self.players.attempts
        self.figures["phases"] = dict(sorted(Counter(self.players.phases.values()).items()))
        self.figures["jobs_beyond_the_first_attempt"] = sum(n > 1 for n in attempts.values())
        self.figures["jobs_missing"] = sum((n, stage) not in attempts for n in self.last for stage in Stage)
        self.figures["reconcile_errors"] = self.operator.state()["errors"]
        self.figures["faults_of_the_players"] = self.players.faults[:5]


async def measure(arguments: argparse.Namespace, instance: Instance, folder: Path) -> dict[str, Any]:
    """All figures."""
    store, operator = prepare(instance), Operator(instance, folder)
    async with Cluster(instance.kubeconfig, NAMESPACE) as cluster:
        players = Players(cluster, store)
        playing = asyncio.create_task(players.play())
        known = {"iterations": arguments.live, "processors": os.cpu_count()}
        found = Measurement(arguments, instance, cluster, operator, players, playing, folder / "operator.log", known)
        try:
            await found.begin()
            await found.quiet()
            await found.hand_offs()
            await found.restart()
            await found.run_through()
            found.count()
        finally:
            playing.cancel()
            operator.stop()
    return found.figures


def _interrupted(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


Measure = Callable[[argparse.Namespace, Instance, Path], Coroutine[Any, Any, dict[str, Any]]]


def on_own_instance(measure: Measure, arguments: argparse.Namespace) -> None:
    """Print as JSON what is measured on a cluster without nodes, which is gone afterwards."""
    instance = Instance(arguments.instance)
    signal.signal(signal.SIGTERM, _interrupted)
    lifecycle.down(instance, say=lambda _: None)
    try:
        lifecycle.up_without_nodes(instance)
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(asyncio.run(measure(arguments, instance, Path(folder))), indent=1))
    finally:
        lifecycle.down(instance, say=lambda _: None)


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--live", type=int, default=1000, help="iterations (default: %(default)s)")
    parser.add_argument("--timed", type=int, default=100, help="of them, whose hand-offs are timed while all live")
    # a thousand iterations that take an hour each
    parser.add_argument("--rate", type=float, default=0.28, help="iterations let go a second while timed")
    parser.add_argument("--through", type=int, help="of them, that run to their end at last (default: all)")
    parser.add_argument("--quiet-s", type=float, default=60, help="seconds in which nothing happens")
    parser.add_argument("--limit-s", type=float, default=3000, help="longest wait")
    parser.add_argument("--instance", type=int, default=3, help="number of the embedded cluster")
    arguments = parser.parse_args()
    arguments.timed = min(arguments.timed, arguments.live)
    on_own_instance(measure, arguments)


if __name__ == "__main__":
    main()
