"""What the previous round did and what came of it, from the manifests of the referenced iteration."""

from dpe_api.artifacts import DiagnosisSummary, EvaluationSummary, GenerationSummary, InputRef
from dpe_api.diagnosis_spec import MixtureMemory
from dpe_api.names import Stage
from dpe_jobs.diagnosis.mixture import Memory, Past
from dpe_jobs.diagnosis.sample import PROBE
from dpe_jobs.runtime import BadData
from dpe_jobs.store import Store, join


def read_memory(store: Store, previous: str | None, wanted: MixtureMemory) -> Memory | None:
    """The memory that `spec.mixture.memory` asks for; None in a first round, or when it asks for none.

    `previous` is the folder of the referenced iteration's artifacts. Smoothing reads its diagnosis; damping also its
    generation and its evaluation, whose comparison on the probe is paired by rows and so sharper than the difference of
    two reports. BadData: one of them is gone.
    """
    if previous is None or (wanted.smoothing == 0 and wanted.damping == 0):
        return None
    inputs: list[InputRef] = []

    def summary(stage: Stage) -> dict[str, object]:
        folder = join(previous, stage)
        manifest = store.manifest(folder)
        if manifest is None:
            raise BadData(
                "MemoryLost",
                f"spec.mixture.memory needs the {stage} of the previous round, and {folder} has no manifest: start the "
                "iteration anew with smoothing and damping 0",
            )
        inputs.append(store.input_ref(folder))
        return manifest.summary

    diagnosis = DiagnosisSummary.model_validate(summary(Stage.DIAGNOSIS))
    asked = {c.name for c in diagnosis.report.of(PROBE).categories if c.n > 0}
    past = {q.name: Past(share=q.weight if q.name in asked else None) for q in diagnosis.quotas}
    if wanted.damping == 0:
        return Memory(past, inputs=tuple(inputs))
    generation = GenerationSummary.model_validate(summary(Stage.GENERATION))
    evaluation = EvaluationSummary.model_validate(summary(Stage.EVALUATION))
    probe = next((c for c in evaluation.comparisons if c.name == PROBE), None)  # None: no row of it could be compared
    kept = {c.name: c.kept for c in generation.categories}
    changes = {c.name: c.delta for c in (probe.categories if probe else ())}
    past = {name: Past(p.share, kept.get(name, 0), changes.get(name)) for name, p in past.items()}
    return Memory(past, evaluation.confidence, tuple(inputs))
