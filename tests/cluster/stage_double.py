"""Stands for the stages in tests of the operator: real pods that end as a test wants, and publish what it gave them.

Mounted into the pods, run as `python stage_double.py STAGE`. It obeys s3://BUCKET/tests/NAMESPACE/STAGE/ATTEMPT.json:
{"hold": true} waits until the object says otherwise, {"exit": CODE, "reason": ..., "message": ...} ends like that;
without the object the stage publishes s3://BUCKET/tests/NAMESPACE/STAGE/summary.json. For one iteration alone both
may lie in .../STAGE/ITERATION/. A model server that is held is not ready; one that is kept says that it has taken the
next model as soon as its attempt is told {"take": true}.
"""

import json
import socket
import sys
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from dpe_api.artifacts import Manifest, ServedReport
from dpe_api.generation_spec import Review
from dpe_api.launch import GenerationLaunch, Launch, ServingLaunch, read_launch
from dpe_api.names import DRAFT, METRICS_PORT, Exit, Stage
from dpe_jobs.runtime import ProgressReporter, StageError, run_stage
from dpe_jobs.store import Store, join, split_uri

POLL_S = 0.2


class Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()


def wish(launch: Launch, store: Store, name: str) -> dict[str, Any] | None:
    bucket, _ = split_uri(launch.output)
    folder = f"s3://{bucket}/tests/{launch.iteration.namespace}/{launch.stage}"
    data = store.find(f"{folder}/{launch.iteration.name}/{name}.json") or store.find(f"{folder}/{name}.json")
    return None if data is None else json.loads(data)


def obey(launch: Launch, store: Store) -> None:
    while True:
        wanted = wish(launch, store, str(launch.attempt)) or {}
        if "exit" in wanted:
            error = StageError(wanted.get("reason", "Told"), wanted.get("message", "as told"))
            error.exit_code = Exit(wanted["exit"])
            raise error
        if not wanted.get("hold"):
            return
        time.sleep(POLL_S)


def serve(launch: Launch, store: Store) -> None:
    obey(launch, store)
    server = ThreadingHTTPServer(("", METRICS_PORT), Ready)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while not takes_next(launch, store):
        obey(launch, store)
        time.sleep(POLL_S)
    while True:
        obey(launch, store)
        time.sleep(POLL_S)


def takes_next(launch: Launch, store: Store) -> bool:
    """Say that the next model is served, when there is one and it may be taken."""
    assert isinstance(launch, ServingLaunch)
    uri = launch.next_model_uri
    may = (wish(launch, store, str(launch.attempt)) or {}).get("take")
    if uri is None or not may or store.find(f"{uri}/config.json") is None:
        return False
    now, pod = datetime.now(UTC), socket.gethostname()
    said = ServedReport(attempt=launch.attempt, pod=pod, uri=uri, in_place=True, seconds=0.0, at=now)
    folder = join(launch.output, "attempts", str(launch.attempt))
    store.put(f"{folder}/served-{pod}.json", said.model_dump_json(by_alias=True).encode())
    return True


def work(launch: Launch, store: Store) -> None:
    progress = ProgressReporter(launch, store, total=10)
    obey(launch, store)
    progress.set(10)
    if launch.stage is Stage.TRAINING:
        store.put(f"{launch.output}/model/config.json", b"{}")
    summary = wish(launch, store, "summary")
    assert summary is not None
    manifest = Manifest(stage=launch.stage.value, attempt=launch.attempt, created_at=datetime.now(UTC), summary=summary)
    store.publish(join(launch.output, DRAFT) if is_draft(launch) else launch.output, manifest)


def is_draft(launch: Launch) -> bool:
    """Whether somebody is to look at it first."""
    wanted = isinstance(launch, GenerationLaunch) and launch.generation.review is Review.REQUIRED
    return wanted and not launch.reviewed


def main() -> Exit:
    if sys.argv[1] == "fetch-model":
        return Exit.DONE
    launch = read_launch()
    if launch.stage in (Stage.SERVE_BASE, Stage.SERVE_CANDIDATE):
        return run_stage(launch, serve, metrics=False)
    return run_stage(launch, work)


if __name__ == "__main__":
    sys.exit(main())
