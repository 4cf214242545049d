"""What the operator creates for one attempt of a stage. One module per stage, of the same name as in `dpe_jobs`."""

from dpe_api.names import Stage
from dpe_operator.manifests import diagnosis, evaluation, generation, serving, training
from dpe_operator.manifests.common import Attempt
from dpe_operator.plan import Child

_BUILDERS = {
    Stage.SERVE_BASE: serving.children,
    Stage.DIAGNOSIS: diagnosis.children,
    Stage.GENERATION: generation.children,
    Stage.TRAINING: training.children,
    Stage.SERVE_CANDIDATE: serving.children,
    Stage.EVALUATION: evaluation.children,
}


def build(attempt: Attempt) -> tuple[Child, ...]:
    """The children of one attempt, in the order in which they are to be created: the Job comes last."""
    return _BUILDERS[attempt.stage](attempt)
