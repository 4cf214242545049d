"""`spec.probe`, `spec.diagnosis` and `spec.mixture`: what is asked, how, and what follows from it."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from dpe_api.base import ApiModel
from dpe_api.fields import Confidence, Fraction, Name, S3Uri

TAXONOMY = (
    *("geometric", "medical", "chart_graph", "text_dense", "diagram", "math_formula"),
    *("map", "natural_scene", "artistic", "everyday_object", "architectural", "mixed"),
)
"""The twelve image categories of the DPE paper."""
ERROR_TYPES = ("visual_recognition", "calculation", "reasoning", "misunderstanding", "other")

Label = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_. -]*$")]


class Categorise(ApiModel):
    """Have an endpoint look at each probe image and question and name the category."""

    endpoint: Name
    """Name of an entry of spec.endpoints that takes images."""
    taxonomy: Annotated[list[Label], Field(min_length=2, max_length=64)] = Field(default_factory=lambda: list(TAXONOMY))
    """The categories to choose from."""


class Probe(ApiModel):
    """The questions that the model is diagnosed on."""

    uri: S3Uri
    """Folder of Parquet files with columns id, image, question, answer, answer_type and, unless `categorise` is given,
    category."""
    sample_size: Annotated[int, Field(ge=1, le=1_000_000)] = 200
    """Rows asked, spread evenly over the categories; each round draws afresh."""
    adaptive_share: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    """Share of sampleSize that is asked last, in the categories whose intervals are then widest."""
    categorise: Categorise | None = None
    """Assign categories by an endpoint instead of reading the column."""


class Judge(ApiModel):
    """Who grades free-form answers, those of answer_type `judge`."""

    endpoint: Name
    """Name of an entry of spec.endpoints."""


class Attribution(ApiModel):
    """From wrong answers to weaknesses."""

    endpoint: Name | None = None
    """Name of an entry of spec.endpoints that takes images; left out: by rules (slices and confusions) only."""
    max_calls: Annotated[int, Field(ge=1, le=100_000)] = 200
    """Most wrong answers that the endpoint looks at, spread over the categories."""
    error_types: Annotated[list[Label], Field(min_length=1, max_length=16)] = Field(
        default_factory=lambda: list(ERROR_TYPES)
    )
    """What the endpoint may call an error."""
    weaknesses_per_category: Annotated[int, Field(ge=1, le=20)] = 3
    """Longest list of weaknesses of one category."""
    significance: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """False discovery rate of the slices that are called weak."""


class Diagnosis(ApiModel):
    """How the model is asked and when an answer set is good enough to trust."""

    rollouts_per_item: Annotated[int, Field(ge=1, le=64)] = 9
    """Sampled answers per probe row, beside one greedy answer: they give the pass rate."""
    temperature: Annotated[float, Field(gt=0, le=2)] = 1.0
    """Temperature of the sampled answers."""
    max_tokens: Annotated[int, Field(ge=1, le=32768)] = 512
    """Longest answer, in tokens."""
    max_pixels: Annotated[int, Field(ge=784, le=67_108_864)] = 1_003_520
    """A larger image is scaled down before it is sent; 1280 patches of 28 by 28 pixels by default."""
    shuffle_choices: bool = False
    """List the options of a multiple-choice question in an order drawn per row, so that no letter is favoured."""
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 32
    """Requests in flight."""
    confidence: Confidence = 0.95
    """Confidence of every interval."""
    max_error_rate: Fraction = 0.05
    """The stage stops when more than this share of the rows of the probe, or of a benchmark, got no answer."""
    judge: Judge | None = None
    """Who grades answers of answer_type `judge`; required when a question set has such rows."""
    attribution: Attribution = Field(default_factory=Attribution)
    """From wrong answers to weaknesses."""


class MixturePolicy(StrEnum):
    """From accuracy to weight: the paper's bands, the distance to a target, a posterior draw, or all alike."""

    THRESHOLDS = "thresholds"
    GAP = "gap"
    THOMPSON = "thompson"
    UNIFORM = "uniform"


class MixtureMemory(ApiModel):
    """What earlier rounds say about this one. Nothing in the first round."""

    smoothing: Annotated[float, Field(ge=0, le=0.95)] = 0.0
    """Part of the previous round's share in this one's (exponential smoothing)."""
    damping: Fraction = 0.0
    """How much of the weight a category loses whose last round of samples brought no gain."""


class Mixture(ApiModel):
    """How the diagnosis becomes the shares of the training data."""

    policy: MixturePolicy = MixturePolicy.THRESHOLDS
    """thresholds (the paper's accuracy bands), gap (distance to targetAccuracy), thompson (posterior draw), uniform."""
    exploration_floor: Annotated[float, Field(ge=0, le=0.2)] = 0.02
    """Least share of every category, also of one never sampled or out of reach."""
    retention_floor: Annotated[float, Field(ge=0, le=1)] = 0.15
    """Least weight, before normalising, of a strong category; its samples bypass the difficulty filter."""
    reach: Fraction = 0.2
    """A category whose pass rate interval lies below this is out of reach of RL: it gets the exploration floor only."""
    target_accuracy: Annotated[float, Field(gt=0, le=1)] = 0.9
    """The accuracy that `gap` aims at; a category above it counts as strong."""
    memory: MixtureMemory = Field(default_factory=MixtureMemory)
    """What earlier rounds say about this one."""
