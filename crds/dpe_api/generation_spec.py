"""`spec.generation`: from what samples are made, by whom, and which are kept."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from dpe_api.agents_spec import PlannerAgent, SelectorAgent, ValidatorAgent, WriterAgent
from dpe_api.base import ApiModel
from dpe_api.endpoints import HttpUrl, SecretKeyRef
from dpe_api.fields import Fraction, Name, S3Uri, rules
from dpe_api.quality_spec import Quality


class SourceKind(StrEnum):
    """Where images come from."""

    RENDER = "render"
    POOL = "pool"
    SEARCH = "search"
    EDIT = "edit"


class Provider(StrEnum):
    """Whose image search is asked."""

    SEARXNG = "searxng"
    SERPER = "serper"
    OPENVERSE = "openverse"
    WIKIMEDIA = "wikimedia"


_OF_KIND = {
    "program": ("render", "edit", "pool"),
    "endpoint": ("edit",),
    "uri": ("pool",),
    "maxUses": ("pool",),
    "embedder": ("pool",),
    "provider": ("search",),
    "url": ("search",),
    "apiKeySecretRef": ("search",),
}
"""Fields of a source that belong to some kinds only."""


def _belongs(field: str, kinds: tuple[str, ...]) -> tuple[str, str, str]:
    own = " || ".join(f"self.kind == '{kind}'" for kind in kinds)
    message = f"spec.generation.sources[].{field} belongs to kind {' or '.join(kinds)} only: remove it"
    return f"!has(self.{field}) || {own}", message, f".{field}"


_SAME = " && ".join(
    [
        "s.kind == t.kind",
        # of a pool the program does not tell it from another one
        "(s.kind == 'pool' || (has(s.program) ? s.program : '') == (has(t.program) ? t.program : ''))",
        *(
            f"(has(s.{field}) ? s.{field} : '') == (has(t.{field}) ? t.{field} : '')"
            for field in ("endpoint", "uri", "provider", "url")
        ),
    ]
)
"""Whether two sources are the same one."""


class Source(ApiModel):
    """One source of images. Which fields it takes depends on its kind."""

    model_config = rules(
        *(_belongs(field, kinds) for field, kinds in _OF_KIND.items()),
        (
            "self.kind != 'render' || has(self.program)",
            "spec.generation.sources[]: kind render needs program, an entry point in the group dpe.generators",
            "",
        ),
        (
            "self.kind != 'pool' || has(self.uri)",
            "spec.generation.sources[]: kind pool needs uri, the s3:// folder of its images",
            "",
        ),
        (
            "self.kind != 'search' || has(self.provider)",
            "spec.generation.sources[]: kind search needs provider (searxng, serper, openverse or wikimedia)",
            "",
        ),
        (
            "!has(self.provider) || self.provider != 'searxng' || has(self.url)",
            "spec.generation.sources[]: provider searxng needs url, the address of your SearXNG instance",
            "",
        ),
        (
            "!has(self.embedder) || !has(self.program)",
            "spec.generation.sources[]: a pool with program is not searched by words: remove embedder or program",
            ".embedder",
        ),
        (
            "self.kind != 'edit' || has(self.program) != has(self.endpoint)",
            "spec.generation.sources[]: kind edit needs exactly one of program (an entry point in the group "
            "dpe.edits) and endpoint (an entry of spec.endpoints with images/edits)",
            "",
        ),
    )
    kind: SourceKind
    """render (drawn by a program), pool (unlabelled images in the object store), search (of the web) or edit (of an
    image of another source)."""
    share: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Part of a category's targets that go to this source, relative to the others that can supply the category."""
    program: Name | None = None
    """render: entry point in the group `dpe.generators`; edit: in the group `dpe.edits`; pool: in the group
    `dpe.generators`, one that reads what is in the pool's images, where no endpoint writes about them."""
    endpoint: Name | None = None
    """edit: name of an entry of spec.endpoints with images/edits."""
    uri: S3Uri | None = None
    """pool: folder of Parquet files or WebDataset shards, indexed by `python -m dpe_jobs index`."""
    embedder: Name | None = None
    """pool: name of an entry of spec.endpoints with embeddings, of the model that the pool was indexed with; left out:
    it is searched by words alone."""
    max_uses: Annotated[int, Field(ge=1, le=1000)] | None = None
    """pool: most samples that are made of one image, over all rounds; left out: 1."""
    provider: Provider | None = None
    """search: whose image search is asked."""
    url: HttpUrl | None = None
    """search: address of the provider's API; left out: its public one."""
    api_key_secret_ref: SecretKeyRef | None = None
    """search: where the API key is."""


class Review(StrEnum):
    """Whether a person looks at the samples before they are trained on."""

    NONE = "none"
    REQUIRED = "required"


class SolverFilter(ApiModel):
    """Keep candidates that the served model solves sometimes."""

    model_config = rules(
        (
            "self.minPassRate < self.maxPassRate",
            "spec.generation.filter.minPassRate must be below maxPassRate: swap them or widen the band",
            ".minPassRate",
        )
    )
    rollouts: Annotated[int, Field(ge=1, le=64)] = 9
    """Sampled answers per candidate."""
    min_pass_rate: Fraction = 0.3
    """A candidate solved less often is too hard."""
    max_pass_rate: Fraction = 0.8
    """A candidate solved more often is too easy."""
    temperature: Annotated[float, Field(gt=0, le=2)] = 1.0
    """Sampling temperature."""
    top_k: Annotated[int, Field(ge=-1, le=100_000)] = 40
    """Sampling top-k; -1 for the whole vocabulary."""


class Generation(ApiModel):
    """How many samples are made, from what, and which are kept."""

    model_config = rules(
        (
            "self.maxCandidates >= self.targetSamples",
            "spec.generation.maxCandidates must be at least targetSamples",
            ".maxCandidates",
        ),
        (
            f"!has(self.sources) || self.sources.all(s, self.sources.exists_one(t, {_SAME}))",
            "spec.generation.sources: two entries are one source (a program of one kind, an endpoint, the uri of a "
            "pool, or a provider at one url): merge them, their shares added up",
            ".sources",
        ),
        (
            "!has(self.sources) || self.sources.all(s, has(s.program)) || (has(self.writer) && has(self.validator))",
            "spec.generation: pictures of search, of edit by an endpoint and of pool without program can be read by no "
            "program: name endpoints in writer and validator",
            ".sources",
        ),
        (
            "!has(self.sources) || self.sources.all(s, !has(s.endpoint)) || has(self.selector)",
            "spec.generation: a source of kind edit with an endpoint needs an endpoint in selector, which says what to "
            "change",
            ".sources",
        ),
    )
    target_samples: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    """Samples to train on; category quotas sum to it exactly."""
    max_candidates: Annotated[int, Field(ge=1, le=10_000_000)] = 4000
    """Candidates written before the shortfall is reported as such."""
    sources: Annotated[list[Source], Field(min_length=1, max_length=16)] = Field(
        default_factory=lambda: [Source(kind=SourceKind.RENDER, program="shapes")]
    )
    """Where images come from."""
    shards: Annotated[int, Field(ge=1, le=64)] = 1
    """Pods that share the work; each has its part of every quota."""
    planner: PlannerAgent | None = None
    """Who says what to make; left out: a program."""
    selector: SelectorAgent | None = None
    """Who finds a picture for each target; left out: a program."""
    writer: WriterAgent | None = None
    """Who asks about it; left out: the program of the source, which knows what is in the picture."""
    validator: ValidatorAgent | None = None
    """Who checks question and answer; left out: the program of the source."""
    filter: SolverFilter = Field(default_factory=SolverFilter)
    """Difficulty filter by rollouts of the served model."""
    quality: Quality = Field(default_factory=Quality)
    """Checks of every sample, whatever its source."""
    review: Review = Review.NONE
    """required: before training the iteration waits until a person has looked at the samples, has marked those to drop
    if there are any, and has annotated it with dpe.dev/review=accepted or rejected."""
