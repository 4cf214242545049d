"""`spec.evaluation`: what the candidate is compared on, and when it is accepted."""

from typing import Annotated

from pydantic import Field

from dpe_api.base import ApiModel
from dpe_api.fields import Confidence, Fraction, Name, S3Uri, rules


class Benchmark(ApiModel):
    """Questions that are never trained or diagnosed on."""

    name: Name
    """Name in status, metrics and reports."""
    uri: S3Uri
    """Folder of Parquet files, in the probe's columns."""


class LmmsEvalTask(ApiModel):
    """A public benchmark that lmms-eval asks of the base, beside the diagnosis, and of the candidate."""

    task: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    """Its name in lmms-eval, such as `mmmu_val` or `ai2d`: one task, not a group of them. Its data lies in the
    platform's volume."""
    metric: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """The metric that is compared, as lmms-eval calls it (`exact_match`, or with the filter
    `exact_match,flexible-extract`); left out: the first that it reports."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Ask only so many questions, the first ones; left out: all."""
    gate: bool = False
    """Whether the candidate must also hold this metric, within gate.maxRegression; left out: it is reported only. Needs
    a metric that is the mean of a score from 0 to 1 of each question."""


class Gate(ApiModel):
    """When the candidate replaces the model."""

    max_regression: Fraction = 0.01
    """The lower bound of the change in macro accuracy must be above minus this on every benchmark."""
    confidence: Confidence = 0.95
    """Confidence of that bound."""


class Evaluation(ApiModel):
    """What the candidate is compared on."""

    model_config = rules(
        (
            "self.benchmarks.all(b, self.benchmarks.exists_one(c, c.name == b.name))",
            "spec.evaluation.benchmarks: names must differ",
            ".benchmarks",
        ),
        (
            "!has(self.lmmsEval) || self.lmmsEval.all(t, self.lmmsEval.exists_one(u, u.task == t.task))",
            "spec.evaluation.lmmsEval: tasks must differ",
            ".lmmsEval",
        ),
    )
    benchmarks: Annotated[list[Benchmark], Field(max_length=32)] = Field(default_factory=list)
    """Parquet benchmarks; without any, the gate looks at the re-diagnosis."""
    lmms_eval: Annotated[list[LmmsEvalTask], Field(max_length=16)] = Field(default_factory=list)
    """Public benchmarks that lmms-eval asks. The platform must lend their data: Helm value lmmsEval.data."""
    gate: Gate = Field(default_factory=Gate)
    """Acceptance rule."""
