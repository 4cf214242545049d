"""lmms-eval as a program: its command line, its environment, and what it says when it does not succeed.

It lives in an environment of its own, since its packages and ours do not agree. It ends with status 0 also when it has
failed, so that only the files which it writes tell success.
"""

import logging
import os
import re
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from dpe_api.evaluation_spec import LmmsEvalTask
from dpe_api.names import LMMS_EVAL, LMMS_EVAL_DATA_DIR, SERVED_MODEL_NAME
from dpe_jobs.runtime import BadConfig, StageError, Transient

log = logging.getLogger(__name__)

REQUEST_RETRIES = 5
KEPT_LINES = 200
SHOWN_LINES = 8
SHOWN_CAUSES = 4
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_BAR = re.compile(r"^(?P<what>[A-Z][A-Za-z ]*):?\s+\d+%\|.*\|\s*(?P<done>\d+)/(?P<total>\d+) ")  # of tqdm
_COUNTED = ("Model Responding", "Postprocessing")  # asking, then grading: a judge may take as long as the model
_CAUSE = re.compile(r"^[A-Za-z_][\w.]*(Error|Exception): |.*\| ERROR ")  # the end of a traceback, or a line of the log

Tell = Callable[[int, int], object]
"""Told how many questions of how many are answered; afterwards, from the start, how many are graded."""


def command(task: LmmsEvalTask, url: str, out: Path, *, concurrency: int, seed: int, data: Path) -> list[str]:
    """The command line. The data sets are looked for in the working directory, by their names on the hub."""
    model = {
        "model": SERVED_MODEL_NAME,
        "base_url": f"{url.rstrip('/')}/v1",
        "api_key": "none",  # vLLM wants none, and OPENAI_API_KEY may be that of a task's judge
        "num_concurrent": str(concurrency),
        "max_retries": str(REQUEST_RETRIES),
    }
    own = data / "tasks"
    return [
        *(LMMS_EVAL, "eval", "--model", "openai"),
        *("--model_args", ",".join(f"{name}={value}" for name, value in model.items())),
        # twice: a name alone that is also that of a folder here, a data set's, is read as a folder of task files
        *("--tasks", f"{task.task},{task.task}", "--batch_size", "1", "--seed", str(seed), "--timezone", "UTC"),
        *("--log_samples", "--output_path", str(out)),
        *(("--include_path", str(own)) if own.is_dir() else ()),
        *(("--limit", str(task.limit)) if task.limit is not None else ()),
    ]


def environment(work: Path, given: Mapping[str, str]) -> dict[str, str]:
    """The pod's environment without our credentials, with every cache in `work` and no call to any hub."""
    ours = {name: value for name, value in given.items() if not name.startswith("DPE_")}
    return {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(work / "huggingface"),
        "MPLCONFIGDIR": str(work / "matplotlib"),
        **ours,
        "PYTHONUNBUFFERED": "1",
    }


def version(work: Path) -> str:
    """Of lmms-eval. BadConfig when this image has none."""
    env = environment(work, os.environ)
    try:
        found = subprocess.run(
            [LMMS_EVAL, "version"], env=env, capture_output=True, text=True, timeout=300, check=False
        )
    except FileNotFoundError:
        raise BadConfig(
            "NoLmmsEval", f"there is no {LMMS_EVAL}: the Helm value lmmsEval.image must be made from its Dockerfile"
        ) from None
    number = re.search(r"\d+(\.\w+)+", _COLOURS.sub("", found.stdout))
    if found.returncode != 0 or number is None:
        raise BadConfig("NoLmmsEval", f"{LMMS_EVAL} version says: {(found.stderr or found.stdout).strip()[-500:]}")
    return number[0]


def run(arguments: list[str], work: Path, data: Path, tell: Tell) -> str:
    """Run it to its end; its words, for when it turns out to have failed. Also when stopped, nothing of it is left."""
    log.info("starting %s", " ".join(arguments))
    process = subprocess.Popen(
        arguments,
        cwd=data,
        env=environment(work, os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    tail: deque[str] = deque(maxlen=KEPT_LINES)
    try:
        assert process.stdout is not None
        for line in process.stdout:  # a progress bar's carriage returns end lines, too
            words = _COLOURS.sub("", line).rstrip()
            bar = _BAR.match(words)
            if bar is not None and bar["what"] in _COUNTED:
                tell(int(bar["done"]), int(bar["total"]))
            if words and "%|" not in words:
                tail.append(words)
                log.info("lmms-eval: %s", words)
        process.wait()
    finally:
        _kill_group(process)
    return f"status {process.returncode}: {shown(tail)}"


def shown(tail: Iterable[str]) -> str:
    """The lines that name errors, first cause first, and the last lines."""
    lines = list(tail)
    causes = [line for line in lines if _CAUSE.match(line)][:SHOWN_CAUSES]
    return "\n".join([*causes, "...", *lines[-SHOWN_LINES:]] if causes else lines[-SHOWN_LINES:])


def failure(task: str, said: str) -> StageError:
    """What it means that lmms-eval wrote no results: its words, and whether trying again can help."""
    if "Tasks not found" in said:
        return BadConfig("UnknownTask", f"spec.evaluation.lmmsEval: lmms-eval has no task {task}: {said}")
    if "OfflineModeIsEnabled" in said:  # what the data sets library says of one that it would have to download
        return BadConfig(
            "NoTaskData",
            f"spec.evaluation.lmmsEval: the data of {task} are not below {LMMS_EVAL_DATA_DIR}: copy them to the volume "
            f"of the Helm value lmmsEval.data; lmms-eval: {said}",
        )
    return Transient("LmmsEvalFailed", f"lmms-eval {task} wrote no results: {said}")


def _kill_group(process: "subprocess.Popen[str]") -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        log.debug("lmms-eval's processes are gone already")
    process.wait()


def data_folder() -> Path:
    """Where the platform mounts the data sets. BadConfig when it does not."""
    folder = Path(LMMS_EVAL_DATA_DIR)
    if not folder.is_dir():
        raise BadConfig("NoLmmsEval", f"nothing is mounted at {folder}: set the Helm value lmmsEval.data")
    return folder
