"""What stages publish in the object store. `manifest.json` is written last; without it there is no artifact."""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from dpe_api.base import ApiModel

SCHEMA_VERSION = 1


class AnswerType(StrEnum):
    """How an answer is graded."""

    EXACT = "exact"
    CHOICE = "choice"
    NUMBER = "number"
    YES_NO = "yes_no"
    MATHS = "maths"
    LIST = "list"
    JUDGE = "judge"


class Interval(ApiModel):
    """A share or a difference of shares, with its confidence interval."""

    value: float
    low: float
    high: float


class InputRef(ApiModel):
    """Something that a stage read."""

    uri: str
    sha256: str
    """Of the file; of a folder: of its manifest, or of its sorted listing (path, size, etag)."""


class OutputFile(ApiModel):
    """One published file."""

    path: str
    """Relative to the manifest."""
    size: int
    """Bytes."""
    sha256: str
    media_type: str


class IterationId(ApiModel):
    """Whose artifact it is."""

    namespace: str
    name: str
    uid: str


class Manifest(ApiModel):
    """The last file of an artifact, put with If-None-Match: *."""

    schema_version: int = SCHEMA_VERSION
    stage: str
    """A stage's name, or `model`, `dataset` for folders that people upload."""
    attempt: int = 0
    iteration: IterationId | None = None
    created_at: datetime
    inputs: list[InputRef] = Field(default_factory=list)
    outputs: list[OutputFile] = Field(default_factory=list)
    summary: dict[str, object] = Field(default_factory=dict)
    """DiagnosisSummary, GenerationSummary, TrainingSummary or EvaluationSummary, on the wire."""
    seed: int | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    """Versions of the packages that made it."""


class Tokens(ApiModel):
    """Tokens paid for."""

    prompt: int = 0
    completion: int = 0


class EndpointSpending(ApiModel):
    """What a stage spent on one endpoint, over all attempts."""

    endpoint: str
    calls: int
    tokens: Tokens
    cost: float | None = None
    """In the currency of the endpoint's prices; None without prices."""
    budget_spent: bool = False
    """Something was not asked because the endpoint's budget was used up."""


class CategoryReport(ApiModel):
    """How a model does in one category."""

    name: str
    n: int
    """Rows answered (errors are not among them)."""
    errors: int
    """Rows without an answer from the server."""
    correct: int
    """Right greedy answers."""
    accuracy: Interval
    """Greedy, Wilson."""
    rollouts: int = 0
    """Sampled answers."""
    pass_rate: Interval | None = None
    """Sampled, cluster-robust over items; absent when nothing was sampled."""


class SetReport(ApiModel):
    """How a model does on one set of questions."""

    name: str
    """`probe`, `probe_paired` (in an evaluation: the rows that its diagnosis asked), or the benchmark's name."""
    uri: str
    n: int
    errors: int
    macro: Interval
    """Mean of the category accuracies."""
    categories: list[CategoryReport]
    excluded: int = 0
    """Rows that were not asked because they trained the model."""
    uncategorised: int = 0
    """Rows that were not asked because the endpoint gave them no category."""


class Slice(ApiModel):
    """Rows of one category or facet combination that the model does significantly worse on than on the rest."""

    category: str | None = None
    """Looked at within this category; None: over all of them."""
    facets: dict[str, str]
    """One or two facets; empty when the slice is the category itself."""
    n: int
    """Answered rows. Over all categories: of those categories that hold other rows to compare with."""
    correct: int
    accuracy: Interval
    rest: float
    """Accuracy of the rows that it is compared with; over all categories, weighted by the slice's own categories."""
    effect: Interval
    """accuracy - rest: negative."""
    p_value: float
    q_value: float
    """p adjusted for all slices that were tested."""


class Confusion(ApiModel):
    """How often one answer was given instead of another."""

    category: str
    expected: str
    given: str
    """Empty: no answer could be read from the response."""
    count: int


class Weakness(ApiModel):
    """One thing that the model does badly, in a line."""

    category: str
    text: str
    error_type: str | None = None
    """As the endpoint called it; None: found by rules."""
    count: int
    """Wrong answers that show it, of those looked at."""
    examples: list[str]
    """Ids of a few of them."""


class AttributionReport(ApiModel):
    """Why answers are wrong, as far as it could be told."""

    slices: list[Slice] = Field(default_factory=list)
    """Most certain first."""
    tested: int = 0
    """Slices that were tested."""
    confusions: list[Confusion] = Field(default_factory=list)
    """Most frequent first within a category."""
    error_types: dict[str, dict[str, int]] = Field(default_factory=dict)
    """Counts by category and error type, of the wrong answers that an endpoint looked at."""
    weaknesses: list[Weakness] = Field(default_factory=list)
    """Most frequent first within a category."""
    wrong: int = 0
    """Wrong answers in all."""
    looked_at: int = 0
    """Wrong answers that the endpoint attributed."""
    failed: int = 0
    """Wrong answers that it was asked about without a usable reply."""
    unmerged: list[str] = Field(default_factory=list)
    """Categories in which equal lines were counted, because the endpoint's grouping of them was not usable."""


class DiagnosisReport(ApiModel):
    """`report.json` of a diagnosis and of an evaluation's re-diagnosis."""

    model_uri: str
    model_sha256: str
    fingerprint: str
    """Hash of everything that decides the answers (model, questions, sampling): equal fingerprints, equal answers."""
    sets: list[SetReport]
    confidence: float = 0.95
    """Of the intervals in it."""
    attribution: AttributionReport | None = None
    """Of the probe; in report.json only, not in the manifest's summary."""

    def of(self, name: str) -> SetReport:
        """The report of one set; KeyError when it was not asked."""
        for report in self.sets:
            if report.name == name:
                return report
        raise KeyError(name)


class Quota(ApiModel):
    """The part of one category in the training data."""

    name: str
    weight: float
    """Share of the mixture that the diagnosis asks for; they sum to 1."""
    quota: int
    """Samples; they sum to targetSamples, or to the total supply where that is less."""
    reachable: bool
    """False: sampling never solves it, RL gets no gradient."""
    retention: bool
    """True: a strong category, its samples bypass the difficulty filter."""
    supply: int | None = None
    """Most samples that the sources can make of it; None: no limit, 0: none of them makes any."""
    damped: float = 0.0
    """Part of its weight that it lost because the last round's samples brought no gain."""


class TaskResult(ApiModel):
    """What lmms-eval found about one model on one of its tasks."""

    task: str
    metric: str
    """The one that is compared, with its filter: `exact_match,flexible-extract`."""
    value: float
    stderr: float | None = None
    """As lmms-eval has it; None: it has none for this metric."""
    n: int
    """Questions asked."""
    higher_is_better: bool = True
    metrics: dict[str, float] = Field(default_factory=dict)
    """Every number that lmms-eval reports, by its name with the filter."""
    tokens: Tokens = Field(default_factory=Tokens)
    """Paid for by this stage."""
    version: str
    """Of lmms-eval."""
    fingerprint: str
    """Hash of the model, the task, how many questions, and the version of lmms-eval."""


class TaskComparison(ApiModel):
    """Before and after on one task of lmms-eval."""

    task: str
    metric: str
    n: int
    """Questions asked of the candidate."""
    before: float
    before_stderr: float | None = None
    after: float
    after_stderr: float | None = None
    delta: Interval | None = None
    """Change of the metric, paired by question; None where lmms-eval keeps no score of each question for it."""
    higher_is_better: bool = True
    gate: bool = False
    """Whether the gate looked at it."""


class DiagnosisSummary(ApiModel):
    """Summary of the diagnosis: what the operator puts into the status."""

    report: DiagnosisReport
    quotas: list[Quota]
    weaknesses: list[Weakness] = Field(default_factory=list)
    """The few most frequent."""
    lmms_eval: list[TaskResult] = Field(default_factory=list)
    """Public benchmarks, asked by lmms-eval."""
    reused: bool = False
    tokens: Tokens = Field(default_factory=Tokens)


class CategorySamples(ApiModel):
    """What generation brought for one category."""

    name: str
    quota: int
    candidates: int
    kept: int
    """Of the quota: GRPO trains on them."""
    warmup: int = 0
    """Kept beside the quota, for the warm-up."""
    rejected: dict[str, int]
    shortfall_reason: str | None = None
    """Why it got fewer samples than its weight asks for: NoGenerator (no source supplies the category; its quota went
    to the others), Supply (the sources can make no more), MaxCandidates, or Budget (that of an agents' endpoint)."""


class GenerationSummary(ApiModel):
    """Summary of the generation."""

    target: int
    candidates: int
    kept: int
    warmup: int = 0
    """Kept beside the target: samples of categories out of reach, for the warm-up of training."""
    shortfall: int
    rejected: dict[str, int]
    sources: dict[str, int] = Field(default_factory=dict)
    """Kept samples by source, those for the warm-up too: `render:shapes`, `pool:s3://bucket/folder`."""
    licences: dict[str, int] = Field(default_factory=dict)
    """Kept samples by licence (SPDX; empty: unknown), the hundred most frequent; others as `LicenseRef-others`."""
    categories: list[CategorySamples]
    tokens: Tokens = Field(default_factory=Tokens)
    """Of the served model and of the agents."""
    spending: list[EndpointSpending] = Field(default_factory=list)
    """By the agents' endpoints."""


class WarmupSummary(ApiModel):
    """Summary of the supervised steps before GRPO."""

    steps: int
    samples: dict[str, int]
    """Samples of categories out of reach that it learned from, by category."""
    retention: int
    """Samples of other categories beside them."""
    first_loss: float
    """Nats per token of the answers, mean over the first fifth of the steps."""
    last_loss: float
    """Mean over the last fifth of the steps."""
    seconds: float
    """Of all steps together."""


class TrainingSummary(ApiModel):
    """Summary of the training. The model is in the folder `model` beside the manifest."""

    steps: int
    resumed_from_step: int | None = None
    world_size: int
    first_reward: float
    """Mean over the first fifth of the steps."""
    last_reward: float
    """Mean over the last fifth of the steps."""
    seconds_per_step: float
    peak_rss_bytes: int
    """Of the largest rank."""
    ended_early: str | None = None
    """Why there were fewer steps than maxSteps; absent when there were not."""
    merged_share: float | None = None
    """With LoRA: share of the adapter's updates that the merged weights' number format could take."""
    warmup: WarmupSummary | None = None
    """Absent: nothing was out of reach, or no warm-up was asked for."""
    tokens: Tokens = Field(default_factory=Tokens)


class CategoryChange(ApiModel):
    """Before and after on the same items of one category."""

    name: str
    n: int
    before: float
    after: float
    delta: Interval


class Comparison(ApiModel):
    """Before and after on the same items of one set."""

    name: str
    n: int
    """Items answered by both models."""
    before: float
    """Macro accuracy."""
    after: float
    """Macro accuracy."""
    delta: Interval
    """Change of the macro accuracy: MOVER over the categories' paired intervals."""
    categories: list[CategoryChange]


class EvaluationSummary(ApiModel):
    """Summary of the evaluation and the gate's verdict."""

    report: DiagnosisReport
    """The candidate, in the form of a diagnosis."""
    comparisons: list[Comparison]
    lmms_eval: list[TaskComparison] = Field(default_factory=list)
    """Public benchmarks, asked by lmms-eval."""
    confidence: float = 0.95
    """Of the intervals of change."""
    accepted: bool
    reason: str
    """Why, in one line with the numbers."""
    tokens: Tokens = Field(default_factory=Tokens)


class Progress(ApiModel):
    """`progress.json` of a running stage, written at most every 5 s."""

    attempt: int
    done: int
    total: int
    unit: str = "items"
    rate: float = 0.0
    eta_seconds: float | None = None
    live: dict[str, float] | None = None
    """Of training: the newest step, by the names of metrics.jsonl."""
    updated_at: datetime


class ExitReport(ApiModel):
    """`attempts/ATTEMPT/exit-POD.json`: why a pod of a stage ended, for when the pod itself is gone."""

    attempt: int
    pod: str
    exit_code: int
    reason: str
    """CamelCase, one word."""
    message: str
    """For a person: what, where, and what to do."""
    at: datetime


class ServedReport(ApiModel):
    """`attempts/ATTEMPT/served-POD.json`: a kept model server answers with the weights of another model now."""

    attempt: int
    pod: str
    uri: str
    """s3:// folder of the model."""
    in_place: bool
    """Its process went on; false: it had to start anew, for the reason in its log."""
    seconds: float
    """From the moment when the model was seen to be published to the first answer, its download included."""
    at: datetime
