"""One whole turn of the spiral: `python -m examples.shapes.demo`, or `make demo`, which sets everything up first.

Installs the chart, uploads the input, applies iteration-1.yaml, shows how it goes, and prints what came of it.
Started again, it continues with what is running, or says that it is done. Without a terminal it prints plain lines.

Exit codes: 0 the candidate was accepted, 1 something failed, 2 it cannot start, 3 the gate rejected the candidate,
4 still running at --timeout, 130 interrupted (the iteration goes on in the cluster).
"""

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import urllib3
import yaml
from dev.paths import cache
from examples.shapes import view
from examples.shapes.target import CHECKOUT, RELEASE, CommandFailed, Target, Unusable, run
from kubernetes.client import ApiException
from rich.console import Console
from rich.live import Live

from dpe_api.launch import StoreAddress
from dpe_api.names import ENV_ACCESS_KEY, ENV_SECRET_KEY, LABEL_ITERATION, LABEL_RUN, Stage
from dpe_api.status import Phase, StageState, Status
from dpe_jobs.diagnosis.page import PAGE
from dpe_jobs.generation.page import PAGE as GALLERY
from dpe_jobs.store import Store, join
from dpe_jobs.training.page import PAGE as CURVES
from dpe_operator.platform import ObjectStore, Platform

HERE = "examples/shapes"
CRDS = "charts/dpe/crds"
BUCKET = "dpe"  # named in the example's YAML
NAMES = ("shapes-1", "shapes-2")
RUN = "spiral"  # the DPERun of run.yaml, which a reader of docs/runs.md applies by hand
PAGES = "reports"  # folder of the checkout, ignored by git

POLL_S = 2.0
LOG_EVERY_S = 15.0  # between progress lines where there is no terminal
HELM_S = 300.0  # Helm gives up an installation after as long
API_OUTAGE_S = 300.0  # an API server that is away for longer ends the demo
SILENCE_S = 60.0  # an iteration without any status for this long: the operator does not work


class Timings:
    """How long each step took last time, in seconds, kept beside the other caches."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self.seconds: dict[str, float] = json.loads(path.read_text())
        except (OSError, ValueError):  # the first time, or a torn file: it is only a convenience
            self.seconds = {}

    def keep(self, **seconds: float) -> None:
        """Remember durations; a file replaced whole."""
        self.seconds |= {name: round(value, 1) for name, value in seconds.items()}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        part.write_text(json.dumps(self.seconds, indent=1))
        part.replace(self._path)


class Demo:
    """The steps, and where they are said."""

    def __init__(self, target: Target, console: Console, timings: Timings, deadline: float) -> None:
        """`deadline` is on the monotonic clock."""
        self.target, self.console, self.timings, self._deadline = target, console, timings, deadline

    @contextmanager
    def step(self, title: str, key: str) -> Iterator[None]:
        """Say a step as it starts, with the time that it took last, and how long it took now."""
        last = self.timings.seconds.get(key)
        self.console.print(
            f"▶ {title}" + (f" (last time {view.duration(last)})" if last is not None else " (first time)"),
            highlight=False,
        )
        started = time.monotonic()
        try:
            yield
        except BaseException:
            self.console.print(f"✗ {title}: {view.duration(time.monotonic() - started)}", style="red", highlight=False)
            raise
        took = time.monotonic() - started
        self.timings.keep(**{key: took})
        self.console.print(f"✓ {title}: {view.duration(took)}", style="green", highlight=False)

    def install(self) -> None:
        """Namespace, CRDs and chart. Helm installs a CRD once and never updates it: kubectl does both."""
        with self.step(f"Installing the chart into namespace {self.target.namespace}", "install"):
            namespace = yaml.safe_load((CHECKOUT / HERE / "namespace.yaml").read_text())
            namespace["metadata"]["name"] = self.target.namespace
            self.target.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(namespace))
            self.target.kubectl("apply", "--server-side", "--force-conflicts", "-f", CRDS)
            self.target.kubectl("wait", "--for=condition=Established", "--timeout=60s", f"-f={CRDS}")
            files, values = chart_values(self.target)
            arguments = [argument for file in files for argument in ("-f", file)]
            self._take_back_what_was_cut_off()
            self.target.helm(
                *("upgrade", "--install", RELEASE, "charts/dpe", "--skip-crds", "--wait"),
                *("--timeout", f"{HELM_S:.0f}s"),
                *arguments,
                *(["-f", "-"] if values else []),
                stdin=yaml.safe_dump(values) if values else None,
            )

    def _take_back_what_was_cut_off(self) -> None:
        """Helm refuses a release that is pending, also when whoever was at it has died: then for ever."""
        began, told = time.monotonic(), False
        while (found := self.target.release()) is not None and found[0].startswith("pending"):
            state, since = found
            left = HELM_S - max((datetime.now(UTC) - since).total_seconds(), time.monotonic() - began)
            install = state == "pending-install"
            mend = ["uninstall", RELEASE, "--no-hooks", "--wait"] if install else ["rollback", RELEASE, "--no-hooks"]
            if left <= 0 and self.target.context is not None:  # somebody may be at it with a longer --timeout
                command = " ".join(["helm", "--kube-context", self.target.context, "-n", self.target.namespace, *mend])
                raise Unusable(f"release {RELEASE} is {state}: wait for whoever is at it, or take it back: {command}")
            if left <= 0:  # nobody is at it any more
                self.console.print(f"  an earlier installation was cut off ({state}): taking it back", highlight=False)
                self.target.helm(*mend)
                return
            if not told:
                self.console.print(
                    f"  another installation is at work or was cut off ({state}): waiting for it, "
                    f"{view.duration(left)} at most",
                    highlight=False,
                )
                told = True
            time.sleep(POLL_S)

    def upload(self) -> None:
        """Probe, benchmark and base model into the object store."""
        with self.step("Uploading probe, benchmark and base model", "upload"):
            run([sys.executable, "-m", "examples.shapes.upload"])

    def apply(self, name: str) -> None:
        """Create the iteration; one that exists already is left as it is."""
        file = f"{HERE}/iteration-{name.removeprefix('shapes-')}.yaml"
        with self.step(f"kubectl apply -f {file}", "apply"):
            self.target.kubectl("apply", "-f", file)

    def watch(self, name: str) -> Status:
        """Show the iteration until it is Succeeded, Rejected or Failed. Unusable: no answer, TimeoutError."""
        watched = Watched(self, name)
        if not self.console.is_terminal:
            for _ in self._polls(watched):
                for line in watched.lines():
                    self.console.print(line, highlight=False, soft_wrap=True)
            return watched.status
        with Live(console=self.console, refresh_per_second=4, transient=True) as screen:
            for _ in self._polls(watched):
                screen.update(
                    view.live(name, watched.status, watched.now, self.timings.seconds, watched.event, watched.trouble)
                )
        return watched.status

    def _polls(self, watched: "Watched") -> Iterator[None]:
        while True:
            watched.look()
            yield
            if watched.status.phase.is_final:
                return
            if time.monotonic() > self._deadline:
                raise TimeoutError
            time.sleep(POLL_S)

    def report(self, name: str, status: Status) -> int:
        """Print what came of the iteration and where to look next; the exit code."""
        good = status.phase is Phase.SUCCEEDED
        self.console.print()
        if status.diagnosis is not None:
            self.console.print(view.result_table(status))
        style = "bold green" if good else "bold yellow" if status.phase is Phase.REJECTED else "bold red"
        self.console.print(view.verdict(name, status), style=style, highlight=False, soft_wrap=True)
        self.console.print("\nWhere to look next:", highlight=False)
        for line in view.where_next(name, self.target.namespace, status, os.environ.get("DPE_S3_ENDPOINT")):
            self.console.print(f"  {line}", highlight=False, soft_wrap=True)
        for line in self.save_pages(name, status):
            self.console.print(f"  {line}", highlight=False, soft_wrap=True)
        if status.phase is Phase.FAILED:
            self.console.print("  make demo-clean && make demo      # start over once the cause is mended")
        return 0 if good else 3 if status.phase is Phase.REJECTED else 1

    def save_pages(self, name: str, status: Status) -> Iterator[str]:
        """Put the pages that a browser shows beside the checkout; what to open, a line each."""
        platform = self.target.platform()
        if platform is None or status.artifacts is None:
            return
        store = client_of(Platform.model_validate(yaml.safe_load(platform)).object_store)
        pages = (
            (Stage.DIAGNOSIS, PAGE, "with pictures of what went wrong"),
            (Stage.GENERATION, GALLERY, "with pictures of what was kept and what was not"),
            (Stage.TRAINING, CURVES, "with its curves"),
            (Stage.EVALUATION, PAGE, "with pictures of what went wrong"),
        )
        for stage, published, what in pages:
            manifest = store.manifest(join(status.artifacts, stage))
            if manifest is None or published not in [output.path for output in manifest.outputs]:
                continue  # the stage has not finished
            page = CHECKOUT / PAGES / name / f"{stage}.html"
            page.parent.mkdir(parents=True, exist_ok=True)
            store.download(join(status.artifacts, stage, published), page)
            yield f"open {page.relative_to(CHECKOUT)}      # the {stage}, {what}"

    def turn(self, name: str) -> int:
        """One iteration from its YAML to its table; the exit code."""
        status = self.target.status(name)
        if status is not None and status.phase.is_final:
            self.console.print(f"{name} is done already; `make demo-clean` starts over.", highlight=False)
            return self.report(name, status)
        if status is None:
            self.apply(name)
        else:
            self.console.print(f"{name} is running already: continuing to watch it.", highlight=False)
        status = self.watch(name)
        took = {s.name.value: view.elapsed(s, datetime.now(UTC)) for s in status.stages if s.state is StageState.DONE}
        self.timings.keep(**{stage: seconds for stage, seconds in took.items() if seconds is not None})
        return self.report(name, status)

    def clean(self) -> int:
        """Delete the example's iterations, its run, and everything that they wrote; the input and the chart stay."""
        platform = self.target.platform()
        with self.step("Deleting the iterations", "clean"):
            rounds: list[str] = []
            try:
                names = ("get", "dpei", "-l", f"{LABEL_RUN}={RUN}", "-o", "jsonpath={.items[*].metadata.name}")
                rounds = self.target.kubectl(*names).split()
                how = ("--ignore-not-found", "--timeout=120s")
                self.target.kubectl("delete", "dper", RUN, "--cascade=foreground", *how)
                self.target.kubectl("delete", "dpei", *reversed(NAMES), *how)
            except CommandFailed as error:
                if "the server doesn't have a resource type" not in str(error):
                    raise
            # a pod that is still stopping may write its last words into the store
            ours = f"{LABEL_ITERATION} in ({','.join([*NAMES, *rounds])})"
            self.target.kubectl("wait", "--for=delete", "jobs,pods", "-l", ours, "--timeout=120s")
        if platform is None:
            self.console.print("The chart is not installed, so nothing says where artifacts would be.")
            return 0
        with self.step("Deleting their artifacts", "clean-artifacts"):
            store = Platform.model_validate(yaml.safe_load(platform)).object_store
            found = artifacts(client_of(store), store, self.target.namespace)
            client_of(store).delete(found)
        self.console.print(f"{len(found)} objects deleted. `make demo` starts over.", highlight=False)
        return 0


class Watched:
    """The newest that is known of one iteration."""

    def __init__(self, demo: Demo, name: str) -> None:
        self._demo, self._name = demo, name
        self.status = Status()
        self.now = datetime.now(UTC)
        self.event: view.ObjectEvent | None = None
        self.trouble: str | None = None
        self._reached = self._started = time.monotonic()
        self._printed: Status | None = None
        self._printed_event = ""
        self._next_progress = 0.0

    def look(self) -> None:
        """Ask the API server; it may be away for a while. Unusable: for too long, or the iteration was deleted."""
        self.now = datetime.now(UTC)
        try:
            status = self._demo.target.status(self._name)
            self.event = self._demo.target.newest_event(self._name) or self.event
        except (ApiException, urllib3.exceptions.HTTPError, OSError) as error:
            away = time.monotonic() - self._reached
            if away > API_OUTAGE_S:
                raise Unusable(f"no answer from the API server for {view.duration(away)}: {error}") from error
            self.trouble = f"no answer from the API server since {view.duration(away)}: trying again"
            return
        if status is None:
            raise Unusable(f"{self._name} was deleted: `make demo` creates it again")
        self._reached, self.status, self.trouble = time.monotonic(), status, None
        if status.observed_generation is None and time.monotonic() - self._started > SILENCE_S:
            self.trouble = (
                "the operator has not looked at it yet: "
                f"kubectl -n {self._demo.target.namespace} logs deployment/dpe-operator"
            )

    def lines(self) -> Iterator[str]:
        """What is new since the last call, for a log."""
        last = self._demo.timings.seconds
        clock = self.now.strftime("%H:%M:%S")
        new = view.changes(self._printed, self.status, self.now, last)
        if self.event is not None and self.event.key != self._printed_event:
            self._printed_event = self.event.key
            new.append(f"event {self.event.reason}: {self.event.message}")
        if time.monotonic() >= self._next_progress:
            self._next_progress = time.monotonic() + LOG_EVERY_S
            new += [line for line in (view.progress_line(self.status, self.now, last), self.trouble) if line]
        self._printed = self.status
        yield from (f"{clock} {line}" for line in new)


def chart_values(target: Target) -> tuple[list[str], dict[str, object]]:
    """Values files, and values that go through standard input so that no secret is on a command line.

    On a cluster of your own: the files in DPE_VALUES and nothing else. Unusable: a variable is missing.
    """
    if target.context is not None:
        files = [file for file in os.environ.get("DPE_VALUES", "").split(",") if file]
        if not files:
            raise Unusable(
                f"DPE_VALUES is not set: name the values file of your cluster {target.context!r} "
                "(docs/install.md has one to start from)"
            )
        return [str(Path(file).resolve()) for file in files], {}
    missing = [v for v in ("DPE_IMAGE", "DPE_S3_ENDPOINT", ENV_ACCESS_KEY, ENV_SECRET_KEY) if not os.environ.get(v)]
    if missing:
        raise Unusable(f"{', '.join(missing)} is not set: start it with `make demo`")
    image = {"image": os.environ["DPE_IMAGE"]}
    store = {
        "endpoint": os.environ["DPE_S3_ENDPOINT"],
        "bucket": BUCKET,
        "accessKey": os.environ[ENV_ACCESS_KEY],
        "secretKey": os.environ[ENV_SECRET_KEY],
    }
    parts = dict.fromkeys(("operator", "jobs", "serving", "training"), image)
    return ["dev/values.yaml"], {**parts, "objectStore": store}


def client_of(store: ObjectStore) -> Store:
    """The object store as it is reached from here: DPE_S3_ENDPOINT, or the address that pods use."""
    endpoint = os.environ.get("DPE_S3_ENDPOINT") or store.endpoint
    return Store.from_env(StoreAddress(endpoint=endpoint, region=store.region))


def artifacts(client: Store, store: ObjectStore, namespace: str) -> list[str]:
    """Addresses of everything that the example's iterations wrote, also of those deleted earlier."""
    folder = "/".join(
        ["s3:/", store.bucket, *([store.prefix.strip("/")] if store.prefix.strip("/") else []), namespace]
    )
    ours = re.compile(rf"{re.escape(folder)}/({'|'.join(NAMES)}|{RUN}(-\d+){{1,2}})-[0-9a-f]{{8}}/")
    return [found.uri for found in client.list(folder) if ours.match(found.uri)]


def perform(arguments: argparse.Namespace, console: Console) -> int:
    """Everything between the command line and the exit code."""
    target = Target.from_env()
    deadline = time.monotonic() + 60 * arguments.timeout
    demo = Demo(target, console, Timings(cache() / "demo-timings.json"), deadline)
    with demo.step("Looking at the cluster", "cluster"):
        console.print(target.kubectl("get", "nodes").rstrip(), style="dim", highlight=False)
    if arguments.clean:
        return demo.clean()
    wanted = NAMES if arguments.second else NAMES[:1]
    code = 0
    ready = False
    for name in wanted:
        status = target.status(name)
        if not ready and (status is None or not status.phase.is_final):
            demo.install()
            demo.upload()
            ready = True
        code = demo.turn(name)
        if code == 1:
            return code
    if not arguments.second and code == 0:
        console.print("  make demo SECOND=1      # the next turn, from the model that this one accepted")
    return code


def main() -> int:
    """The demo's exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clean", action="store_true", help="delete the iterations and their artifacts, then end")
    parser.add_argument("--second", action="store_true", help="go on with iteration-2.yaml afterwards")
    parser.add_argument("--timeout", type=float, default=60, help="minutes to watch (default: %(default)s)")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    try:
        return perform(arguments, console)
    except (CommandFailed, ApiException, urllib3.exceptions.HTTPError) as error:
        console.print(f"✗ {error}", style="red", markup=False, soft_wrap=True)
        return 1
    except Unusable as error:
        console.print(f"✗ {error}", style="red", markup=False, soft_wrap=True)
        return 2
    except TimeoutError:
        console.print(f"Still running after {arguments.timeout:g} minutes; `make demo` goes on watching.")
        return 4
    except KeyboardInterrupt:
        console.print("\nThe iteration goes on in the cluster: `make demo` shows it again.")
        return 130


if __name__ == "__main__":
    sys.exit(main())
