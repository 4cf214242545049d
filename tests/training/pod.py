"""One pod of the gang as a process: `python tests/training/pod.py LAUNCH INDEX MODEL WORK PORT [OUTAGE_S]`.

The stage itself, with folders and a port of its own, so that several pods fit on one machine.
"""

import sys
from pathlib import Path

from dpe_api.launch import Launch, read_launch
from dpe_jobs import runtime
from dpe_jobs.store import Store
from dpe_jobs.training.pod import Pod
from dpe_jobs.training.run import train

if __name__ == "__main__":
    file, index, model, work, port, *outage_s = sys.argv[1:]
    pod = Pod(int(index), Path(model), Path(work), int(port))
    pod.work.mkdir(parents=True, exist_ok=True)
    runtime.TERMINATION_PATH = str(pod.work / "termination-log")
    launch = read_launch(file)
    runtime.set_up_logging(launch)

    def body(it: Launch, store: Store) -> None:
        for seconds in outage_s:
            store.limit_outage(float(seconds))
        train(it, store, pod)

    sys.exit(runtime.run_stage(launch, body, metrics=False))
