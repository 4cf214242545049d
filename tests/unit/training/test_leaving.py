"""A pod that is done for does not stay for what its threads are at."""

import json
import socket
import subprocess
import sys
from pathlib import Path

from tests.unit.training.test_ends import launch

from dpe_api.launch import StoreAddress
from dpe_api.names import ENV_ACCESS_KEY, Exit

# without credentials the stage ends at once, while a checkpoint is on its way to a store that accepts and says nothing
POD = """
import sys, threading, time
from pathlib import Path
from dpe_api.launch import read_launch
from dpe_jobs import runtime
from dpe_jobs.store import Store
from dpe_jobs.training import checkpoints, run

launch, work = read_launch(sys.argv[1]), Path(sys.argv[2])
runtime.METRICS_PORT, runtime.TERMINATION_PATH = 0, str(work / "termination-log")
store, place = Store(launch.store, "user", "password"), checkpoints.Place(1, 0)
threading.Thread(target=checkpoints.upload, args=(store, launch, place, work / "local"), daemon=True).start()
while not any("ThreadPool" in thread.name for thread in threading.enumerate()):
    time.sleep(0.01)
print("the last word")
run.main(launch)
"""


def test_a_pod_that_ended_leaves_while_its_upload_waits_for_the_store(tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "shard.pt").write_bytes(b"state")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = StoreAddress(endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}")
        file = tmp_path / "launch.json"
        file.write_text(json.dumps(launch(nodes=1).model_copy(update={"store": address}).wire()))
        ended = subprocess.run(
            [sys.executable, "-c", POD, file, tmp_path],
            env={"PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert ended.returncode == Exit.BAD_CONFIG, ended.stderr
    assert ended.stdout == "the last word\n"
    assert json.loads((tmp_path / "termination-log").read_text())["reason"] == "StoreConfiguration"
    assert ENV_ACCESS_KEY in ended.stderr
