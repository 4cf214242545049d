"""One pod of the gang: its folders, and the files by which ranks tell the parent how they are. No torch in here.

The parent outlives its ranks, so it is the one that says why the pod ended. Ranks leave behind: `started-R` (pid) when
they begin, `end-R.json` when they fail on their own, `saved-STEP` while a checkpoint waits for its upload, and a
heartbeat whenever they get somewhere.
"""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from dpe_api.launch import TrainingLaunch
from dpe_api.names import MODEL_DIR, RENDEZVOUS_PORT, WORK_DIR, Exit
from dpe_jobs.runtime import BadConfig, StageError


@dataclass(frozen=True, slots=True)
class End:
    """How a rank ended, in its own words."""

    code: int
    reason: str
    message: str

    def error(self) -> StageError:
        """The error that ends the pod the same way."""
        error = StageError(self.reason, self.message)
        error.exit_code = Exit(self.code)
        return error


@dataclass(frozen=True, slots=True)
class Result:
    """What only the ranks know of the whole run."""

    world_size: int
    peak_rss_bytes: int
    """Of the largest rank."""
    ended_early: str | None
    """Why there were fewer steps than maxSteps."""
    checkpoint_wait_s: float
    """Time that the ranks stood still for uploads."""
    merged_share: float | None = None
    """With LoRA: share of the adapter's updates that the merged weights could take."""


@dataclass(frozen=True, slots=True)
class Pod:
    """Where a pod's files are."""

    index: int
    """Number of the node, from 0; the first one publishes."""
    model: Path
    """Base model, put there by the init container."""
    work: Path
    """Scratch: checkpoints before upload, the trained model."""
    port: int = RENDEZVOUS_PORT

    @classmethod
    def here(cls, launch: TrainingLaunch) -> "Pod":
        """This pod of an Indexed Job; BadConfig outside of one when there are several nodes."""
        index = os.environ.get("JOB_COMPLETION_INDEX", "0" if launch.training.nodes == 1 else "")
        if not index.isdecimal() or int(index) >= launch.training.nodes:
            raise BadConfig(
                "NoCompletionIndex",
                f"JOB_COMPLETION_INDEX is {index!r}: training on {launch.training.nodes} nodes runs as an Indexed Job",
            )
        return cls(int(index), Path(MODEL_DIR), Path(WORK_DIR))

    @property
    def launch_file(self) -> Path:
        """The launch as the ranks read it."""
        return self.work / "launch.json"

    @property
    def output(self) -> Path:
        """Checkpoints of the trainer, as checkpoint-STEP."""
        return self.work / "output"

    @property
    def trained(self) -> Path:
        """The trained model, in the first pod."""
        return self.work / "model"

    @property
    def adapter(self) -> Path:
        """The trained adapter, in the first pod; only with LoRA."""
        return self.work / "adapter"

    @property
    def warmed(self) -> Path:
        """What the warm-up leaves, in the first pod: `model`, `adapter` with LoRA, and its metrics."""
        return self.work / "warmed"

    @property
    def warmup(self) -> Path:
        """The same as it is in the store; GRPO starts from its `model`."""
        return self.work / "warmup"

    @property
    def warmup_adapter(self) -> Path:
        """The warm-up's adapter; only with LoRA."""
        return self.warmup / "adapter"

    @property
    def metrics_file(self) -> Path:
        """A line per optimizer step, written by the pod's first rank."""
        return self.work / "metrics.jsonl"

    @property
    def result_file(self) -> Path:
        """Result of the run as JSON, written by rank 0 at the end."""
        return self.work / "result.json"

    @property
    def _ranks(self) -> Path:
        return self.work / "ranks"

    def prepare(self, launch: TrainingLaunch) -> None:
        """Make the folders and leave the launch for the ranks."""
        for folder in (self.output, self._ranks):
            folder.mkdir(parents=True, exist_ok=True)
        self.launch_file.write_text(json.dumps(launch.wire()))
        self.beat()

    def beat(self) -> None:
        """Say that something got done."""
        (self._ranks / "heartbeat").touch()

    def beaten_at(self) -> float:
        """When something got done last, in seconds since 1970."""
        return (self._ranks / "heartbeat").stat().st_mtime

    def quiet_s(self) -> float:
        """Seconds since something got done."""
        return time.time() - self.beaten_at()

    def begin_save(self) -> None:
        """The ranks say that they are about to write a checkpoint, as soon as those of all pods are, or the model."""
        (self._ranks / "saving").touch()

    @property
    def saves(self) -> bool:
        """Whether they are at it."""
        return (self._ranks / "saving").exists()

    def save(self, step: int) -> None:
        """The ranks say that a checkpoint of this pod is on disk."""
        (self._ranks / f"saved-{step}").touch()
        (self._ranks / "saving").unlink(missing_ok=True)

    def saved(self) -> int | None:
        """The step whose checkpoint waits for its upload, or None."""
        return min((int(p.name.removeprefix("saved-")) for p in self._ranks.glob("saved-*")), default=None)

    def uploaded(self, step: int) -> None:
        """The parent says that a checkpoint of this pod is in the store."""
        (self._ranks / f"saved-{step}").unlink()

    def started(self, rank: int | str) -> None:
        """A rank says that it runs."""
        (self._ranks / f"started-{rank}").write_text(str(os.getpid()))
        self.beat()

    def pids(self) -> dict[str, int]:
        """Process ids of the ranks that started, by rank."""
        return {p.name.removeprefix("started-"): int(p.read_text()) for p in self._ranks.glob("started-*")}

    def forget(self) -> None:
        """A gang has ended well: its process ids may become those of others."""
        for path in self._ranks.glob("started-*"):
            path.unlink()

    def ended(self, rank: int | str, code: Exit, reason: str, message: str) -> None:
        """A rank says why it ends. Whole or not at all: the parent may read at any time."""
        part = self._ranks / f"end-{rank}.part"
        part.write_text(json.dumps(asdict(End(int(code), reason, message))))
        part.replace(self._ranks / f"end-{rank}.json")

    def ends(self) -> dict[str, End]:
        """Ends that ranks left, by rank."""
        found = sorted(self._ranks.glob("end-*.json"))
        return {p.stem.removeprefix("end-"): End(**json.loads(p.read_text())) for p in found}
