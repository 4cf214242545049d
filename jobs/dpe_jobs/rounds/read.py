"""The rounds that led to an evaluation, each from the manifests of its stages.

An evaluation's manifest names that of the round before among its inputs, rejected rounds included.
"""

import logging
from dataclasses import dataclass

from pydantic import ValidationError

from dpe_api.artifacts import (
    Comparison,
    DiagnosisSummary,
    EvaluationSummary,
    GenerationSummary,
    Manifest,
    SetReport,
)
from dpe_api.names import Stage
from dpe_jobs.diagnosis.sample import PAIRED, PROBE
from dpe_jobs.runtime import BadData
from dpe_jobs.store import Store, join

log = logging.getLogger(__name__)

MOST_ROUNDS = 200
"""Longest chain that is followed."""


@dataclass(frozen=True, slots=True)
class RoundFound:
    """One round."""

    name: str
    root: str
    """s3:// folder of the iteration's artifacts."""
    diagnosis: DiagnosisSummary
    generation: GenerationSummary
    evaluation: EvaluationSummary

    @property
    def headline(self) -> str:
        """The set that accuracy is told on: the first benchmark, else the probe."""
        names = [s.name for s in self.evaluation.report.sets if s.name not in (PROBE, PAIRED)]
        return names[0] if names else PROBE

    @property
    def asked_on(self) -> tuple[str, str]:
        """That set's name, and where its questions are."""
        return self.headline, self.after.uri

    @property
    def before(self) -> SetReport:
        """The model that the round began with."""
        return self.diagnosis.report.of(self.headline)

    @property
    def after(self) -> SetReport:
        """Its candidate."""
        return self.evaluation.report.of(self.headline)

    @property
    def comparison(self) -> Comparison:
        """Candidate against that model, paired on the same items."""
        return next(c for c in self.evaluation.comparisons if c.name == self.headline)


def _published(store: Store, folder: str) -> Manifest:
    manifest = store.manifest(folder)
    if manifest is None:
        raise BadData(
            "NotFound", f"{folder} has no manifest: that stage is not finished, or its artifacts were removed"
        )
    return manifest


def read_round(store: Store, root: str, evaluation: Manifest) -> RoundFound:
    """One round of which the evaluation is known. BadData: an earlier stage of it is gone, or not to be read."""
    diagnosis = _published(store, join(root, Stage.DIAGNOSIS))
    generation = _published(store, join(root, Stage.GENERATION))
    try:
        return RoundFound(
            name=root.rsplit("/", 1)[-1] if evaluation.iteration is None else evaluation.iteration.name,
            root=root,
            diagnosis=DiagnosisSummary.model_validate(diagnosis.summary),
            generation=GenerationSummary.model_validate(generation.summary),
            evaluation=EvaluationSummary.model_validate(evaluation.summary),
        )
    except ValidationError as error:
        raise BadData("InvalidSummary", f"{root}: a manifest holds no summary of its stage: {error}") from error


def previous_root(manifest: Manifest) -> str | None:
    """Folder of the iteration before, from an evaluation's manifest; None in a first round.

    It is the last input: a set of questions before it may have a folder of that name.
    """
    end = f"/{Stage.EVALUATION}"
    return next((i.uri.removesuffix(end) for i in reversed(manifest.inputs) if i.uri.endswith(end)), None)


def earlier_rounds(store: Store, root: str | None) -> list[RoundFound]:
    """The rounds up to an iteration, oldest first. Where one was removed the chain begins after it."""
    found: list[RoundFound] = []
    while root is not None and len(found) < MOST_ROUNDS:
        manifest = store.manifest(join(root, Stage.EVALUATION))
        if manifest is None or manifest.stage != Stage.EVALUATION:
            log.warning("%s is gone: the rounds up to it are not shown", root)
            break
        try:
            found.append(read_round(store, root, manifest))
        except BadData as error:
            log.warning("%s: the rounds up to it are not shown", error)
            break
        root = previous_root(manifest)
    return found[::-1]
