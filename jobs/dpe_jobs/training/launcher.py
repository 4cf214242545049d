"""torchrun for one pod: `python -m dpe_jobs.training.launcher --work DIR --model DIR --index N --port P [--warmup]`.

A process of its own, because the number of ranks depends on CUDA, which only torch can tell, and the parent stays
without torch.
"""

import argparse
import logging
import os
from pathlib import Path

import torch
from torch.distributed import run

from dpe_api.launch import TrainingLaunch, read_launch
from dpe_jobs.runtime import BadConfig, StageError, classify, set_up_logging
from dpe_jobs.training import checkpoints, reshape
from dpe_jobs.training.gang import START_WITHIN_S
from dpe_jobs.training.pod import Pod
from dpe_jobs.training.settings import cores_allowed, grpo_arguments, threads_of_rank, warmup_batch_of_rank

log = logging.getLogger(__name__)

# from the first pod that is ready to the last, which may have downloaded or converted its checkpoint more slowly; less
# than the parent waits, so that it learns from torchrun that a pod did not come
_GATHER_WITHIN_S = START_WITHIN_S - 60
_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # of the pod; cgroup v1 has none


def ranks_per_pod(launch: TrainingLaunch) -> int:
    """One per GPU; one where there is no CUDA. BadConfig when fewer GPUs are visible than the spec asks for."""
    wanted = launch.training.gpus_per_node
    if wanted == 0 or not torch.cuda.is_available():
        return 1
    if torch.cuda.device_count() < wanted:
        raise BadConfig(
            "TooFewGpus", f"spec.training.gpusPerNode is {wanted}, but the pod sees {torch.cuda.device_count()} GPUs"
        )
    return wanted


def torchrun_arguments(launch: TrainingLaunch, pod: Pod, ranks: int, *, warmup: bool = False) -> list[str]:
    """Command line of torchrun: static rendezvous at the first pod, no restarts (a new attempt is a new Job)."""
    return [
        f"--nnodes={launch.training.nodes}",
        f"--nproc-per-node={ranks}",
        f"--node-rank={pod.index}",
        f"--master-addr={launch.rendezvous_host}",
        f"--master-port={pod.port}",
        f"--rdzv-conf=timeout={_GATHER_WITHIN_S:.0f}",
        "--max-restarts=0",
        "-m",
        "dpe_jobs.training.rank",
        f"--work={pod.work}",
        f"--model={pod.model}",
        f"--index={pod.index}",
        *(["--warmup"] if warmup else []),
    ]


def main() -> None:
    """Check the settings, then become torchrun."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--index", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--warmup", action="store_true", help="the supervised steps before GRPO")
    arguments = parser.parse_args()
    pod = Pod(arguments.index, arguments.model, arguments.work, arguments.port)
    launch = read_launch(str(pod.launch_file))
    if not isinstance(launch, TrainingLaunch):
        raise TypeError(f"{pod.launch_file} is a launch of {launch.stage}")
    set_up_logging(launch)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HOME"] = str(pod.work / "huggingface")
    try:
        ranks = ranks_per_pod(launch)
        cuda = launch.training.gpus_per_node > 0 and torch.cuda.is_available()
        world = ranks * launch.training.nodes
        cores = cores_allowed(len(os.sched_getaffinity(0)), _CPU_MAX.read_text() if _CPU_MAX.exists() else "max")
        threads = threads_of_rank(cuda, cores, ranks)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
        # refuses what cannot work, once and before a rank starts
        grpo_arguments(launch.training, launch.seed, world, cuda, pod.output)
        if launch.training.warmup is not None:
            warmup_batch_of_rank(launch.training, launch.training.warmup, world)
        if not cuda:
            os.environ["DS_ACCELERATOR"] = "cpu"
        resumed = checkpoints.newest_local(pod.output)
        if resumed is not None:
            reshape.fit(resumed, checkpoints.Shape(world, launch.training.deepspeed.zero_stage), pod.beat)
    except StageError as error:
        pod.ended("launcher", *classify(error))
        raise SystemExit(int(error.exit_code)) from error
    log.info("%d of %d ranks here, on %s", ranks, world, "CUDA" if cuda else "CPU")
    run.main(torchrun_arguments(launch, pod, ranks, warmup=arguments.warmup))


if __name__ == "__main__":
    main()
