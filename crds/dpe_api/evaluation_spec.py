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
        )
    )
    benchmarks: Annotated[list[Benchmark], Field(max_length=32)] = Field(default_factory=list)
    """Parquet benchmarks; without any, the gate looks at the re-diagnosis."""
    gate: Gate = Field(default_factory=Gate)
    """Acceptance rule."""
