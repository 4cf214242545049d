"""Going on with another number of ranks: ZeRO's files are cut by ranks, DeepSpeed's universal checkpoint is not.

Every pod has all files of the checkpoint, and converts them for itself before its ranks start. No torch here.
"""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from dpe_jobs.runtime import BadConfig, Transient
from dpe_jobs.training import checkpoints
from dpe_jobs.training.checkpoints import Shape

log = logging.getLogger(__name__)

_SHARDS = "global_step*/*_optim_states.pt"  # fp32 weights and AdamW's moments, a file for each rank
_UNIVERSAL = "latest_universal"  # names the converted folder
_WEIGHTS = "global_step*/*_model_states.pt"
# what a conversion writes beside them: the shards as fragments, and merged; the weights once more, and those without an
# optimizer's state in fp32, twice as large as bf16
_COPIES = {_SHARDS: 2, _WEIGHTS: 3}
_SHOWN_CHARACTERS = 2000
_POLL_S = 10.0


def is_universal(folder: Path) -> bool:
    """Whether a local checkpoint has been converted."""
    return (folder / _UNIVERSAL).exists()


def fit(folder: Path, have: Shape, advanced: Callable[[], None]) -> None:
    """Let a downloaded checkpoint be one that ranks of the present shape can load.

    `advanced` is called now and then while a conversion gets on: a large one takes longer than anybody waits in
    silence.

    BadConfig `CheckpointShape` when that cannot be: another ZeRO stage, or no room on the disk. Transient when
    DeepSpeed fails.
    """
    had = checkpoints.shape_of(folder)
    if had == have or (had.zero_stage, have.zero_stage) == (0, 0) or is_universal(folder):
        return
    what = (
        f"the checkpoint {folder.name} was written by {had.world_size} ranks with ZeRO-{had.zero_stage}, and this run "
        f"has {have.world_size} with ZeRO-{have.zero_stage}"
    )
    if had.zero_stage != have.zero_stage:
        raise BadConfig(
            "CheckpointShape",
            f"{what}: set spec.training.deepspeed.zeroStage as it was, or delete the checkpoints to start over",
        )
    needed = sum(copies * path.stat().st_size for files, copies in _COPIES.items() for path in folder.glob(files))
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise BadConfig(
            "CheckpointShape",
            f"{what}: converting it needs {needed / 1e9:.1f} GB of the pod's disk, of which {free / 1e9:.1f} are free: "
            "set spec.training nodes and gpusPerNode as they were, or give the nodes more disk",
        )
    log.info("%s: converting it", what)
    _convert(folder, advanced)


def _convert(folder: Path, advanced: Callable[[], None]) -> None:
    """Replace the ranks' shards by a universal checkpoint; one shard at a time is in memory."""
    (shards,) = {path.parent for path in folder.glob(_SHARDS)}
    target = folder / f"{shards.name}_universal"
    shutil.rmtree(target, ignore_errors=True)
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal"]
    # transformers' trainer does not write what DeepSpeed wants to know of pipelines and of tensor parallelism
    command += ["--inject_missing_state", "--num_extract_workers=1", "--num_merge_workers=1"]
    command += [f"--input_folder={shards}", f"--output_folder={target}"]
    code, said = watched(command, target, advanced)
    if code != 0:
        raise Transient("CheckpointReshape", f"DeepSpeed could not convert it:\n{said[-_SHOWN_CHARACTERS:]}")
    shutil.rmtree(shards)


def watched(
    command: Sequence[str], writes: Path, advanced: Callable[[], None], every_s: float = _POLL_S
) -> tuple[int, str]:
    """Run a program to its end, and call `advanced` whenever there is more or less than before in what it writes.

    Returns its exit status and its words.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        try:
            seen = 0
            while True:
                try:
                    code = process.wait(every_s)
                    break
                except subprocess.TimeoutExpired:
                    before, seen = seen, _size(writes)
                    if seen != before:
                        advanced()
        finally:
            process.kill()
        said.seek(0)
        return code, said.read()


def _size(folder: Path) -> int:
    """Bytes in a folder, while files of it come and go."""
    size = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                size += os.path.getsize(os.path.join(path, name))
    return size
