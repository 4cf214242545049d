"""`python -m dpe_jobs STAGE [--launch FILE]`: run one stage of an iteration.

`python -m dpe_jobs import --help`: make a question set of what you have.
`python -m dpe_jobs model --help`: upload a base model.
`python -m dpe_jobs index --help`: make a pool of images searchable.
`python -m dpe_jobs mixture --help`: what each policy would make of a diagnosis.
`python -m dpe_jobs lineage --help`: from a model back to every sample.
`python -m dpe_jobs run-page --help`: accuracy over the rounds of the spiral.

Stages import only what they need: a diagnosis pod has no torch, a training pod no web client.
"""

import os
import signal
import sys

if __name__ == "__main__":
    # the first process of a container has no default for SIGTERM: a pod that is deleted while it still imports would
    # sit out its grace, with what it holds. Stages install their own handlers when there is something to save.
    # 143 is Exit.STOPPED, which is yet to be imported
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))

import argparse
import importlib

from dpe_api.launch import read_launch
from dpe_api.names import LAUNCH_PATH, Exit
from dpe_jobs.runtime import set_up_logging

# each module has main(launch) -> Exit
STAGES = {
    "fetch-model": "dpe_jobs.serving.fetch",
    "serve": "dpe_jobs.serving.run",
    "diagnosis": "dpe_jobs.diagnosis.run",
    "generation": "dpe_jobs.generation.run",
    "training": "dpe_jobs.training.run",
    "evaluation": "dpe_jobs.evaluation.run",
}
# for a person, without a launch file: each module has main(argv) -> Exit
COMMANDS = {
    "import": "dpe_jobs.importing.cli",
    "index": "dpe_jobs.generation.pool.cli",
    "lineage": "dpe_jobs.lineage.cli",
    "model": "dpe_jobs.models",
    "mixture": "dpe_jobs.diagnosis.mixture_cli",
    "run-page": "dpe_jobs.rounds.cli",
}


def main() -> Exit:
    """Exit code of the stage; 78 when the launch file is not readable."""
    parser = argparse.ArgumentParser(prog="dpe_jobs", description=__doc__)
    parser.add_argument("stage", choices=sorted(STAGES))
    parser.add_argument("--launch", default=LAUNCH_PATH, help="launch file (default: %(default)s)")
    set_up_logging(None)
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        ended: Exit = importlib.import_module(COMMANDS[sys.argv[1]]).main(sys.argv[2:])
        return ended
    arguments = parser.parse_args()
    try:
        launch = read_launch(arguments.launch)
    except (OSError, ValueError) as error:
        print(f"{arguments.launch}: {error}", file=sys.stderr)
        return Exit.BAD_CONFIG
    set_up_logging(launch)
    exit_code: Exit = importlib.import_module(STAGES[arguments.stage]).main(launch)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
