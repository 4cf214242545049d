"""`python -m tests.fakes.stage_process LAUNCH.json`: a stage that asks a model, as its pod runs it, without metrics.

A process that may be killed. The port of the metrics is the pod's own; here several stages share a machine.
"""

import sys
from pathlib import Path

from dpe_api.launch import DiagnosisLaunch, GenerationLaunch, parse_launch
from dpe_jobs.diagnosis.run import run as diagnose
from dpe_jobs.evaluation.run import run as evaluate
from dpe_jobs.generation.run import run as generate
from dpe_jobs.runtime import run_stage, set_up_logging

RUNS = {DiagnosisLaunch: diagnose, GenerationLaunch: generate}

if __name__ == "__main__":
    launch = parse_launch(Path(sys.argv[1]).read_bytes())
    set_up_logging(launch)
    sys.exit(run_stage(launch, RUNS.get(type(launch), evaluate), metrics=False))
