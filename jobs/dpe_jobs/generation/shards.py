"""One shard of a generation: its part of the quotas, and the manifest that whoever comes last puts for all.

Shards have disjoint targets and share nothing but the store. Each publishes itself below `shards/NN`; a shard that
finds all of them published makes one artifact of them. Two may do so at the same time: they make the same one.
"""

import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dpe_api.artifacts import CategorySamples, EndpointSpending, GenerationSummary, Manifest, OutputFile, Quota, Tokens
from dpe_api.names import shard_folder
from dpe_jobs.generation.gallery import SHOWN, Gallery, read
from dpe_jobs.generation.samples import FOLDERS, REJECTED, concatenate, few_licences
from dpe_jobs.runtime import BadConfig
from dpe_jobs.store import Store, join

INDEX = "JOB_COMPLETION_INDEX"  # set by the Job controller in pods of an Indexed Job


@dataclass(frozen=True, slots=True)
class Shard:
    """Which part of the work this pod does."""

    index: int = 0
    count: int = 1

    @classmethod
    def of_this_pod(cls, count: int) -> "Shard":
        """By the environment that an Indexed Job gives its pods. BadConfig: it does not fit."""
        if count == 1:
            return cls()
        told = os.environ.get(INDEX, "")
        if not told.isdecimal() or int(told) >= count:
            raise BadConfig("ShardIndex", f"{INDEX} is {told!r}, with spec.generation.shards {count}: 0 to {count - 1}")
        return cls(int(told), count)

    @property
    def name(self) -> str:
        """As files and candidates have it; empty when there is only one."""
        return "" if self.count == 1 else f"s{self.index:02d}"

    @property
    def parts(self) -> tuple[str, ...]:
        """Of a seed: none when there is only one shard."""
        return (self.name,) if self.name else ()

    def prefix(self, round_number: int) -> str:
        """Begins the names of its candidates."""
        return f"r{round_number}{self.name}"

    def folder(self, output: str) -> str:
        """Where it keeps what only it reads."""
        return shard_folder(output, self.index) if self.name else output

    def part(self, total: int, turn: int = 0) -> int:
        """Its part of a number; what is left over goes to one shard each, beginning with `turn`."""
        return total // self.count + ((self.index - turn) % self.count < total % self.count)

    def quotas(self, quotas: Sequence[Quota]) -> list[Quota]:
        """Its part of each quota: over all shards they sum to what they were, and shards differ by one at most."""
        mine, turn = [], 0
        for quota in quotas:
            mine.append(quota.model_copy(update={"quota": self.part(quota.quota, turn)}))
            turn += quota.quota % self.count
        return mine


def shard_manifests(store: Store, output: str, count: int) -> list[Manifest] | None:
    """The manifests of all shards, in order; None while one is missing."""
    found = []
    for index in range(count):
        manifest = store.manifest(Shard(index, count).folder(output))
        if manifest is None:
            return None
        found.append(manifest)
    return found


def merge_summaries(summaries: Sequence[GenerationSummary]) -> GenerationSummary:
    """The summary of all shards together."""
    categories: dict[str, CategorySamples] = {}
    for summary in summaries:
        for one in summary.categories:
            known = categories.get(one.name)
            categories[one.name] = one if known is None else _add(known, one)
    rejected: Counter[str] = sum((Counter(s.rejected) for s in summaries), Counter())
    sources: Counter[str] = sum((Counter(s.sources) for s in summaries), Counter())
    return GenerationSummary(
        target=sum(s.target for s in summaries),
        candidates=sum(s.candidates for s in summaries),
        kept=sum(s.kept for s in summaries),
        warmup=sum(s.warmup for s in summaries),
        shortfall=sum(s.shortfall for s in summaries),
        rejected=dict(sorted(rejected.items())),
        sources=dict(sorted(sources.items())),
        licences=few_licences(sum((Counter(s.licences) for s in summaries), Counter())),
        categories=list(categories.values()),
        tokens=Tokens(
            prompt=sum(s.tokens.prompt for s in summaries), completion=sum(s.tokens.completion for s in summaries)
        ),
        spending=_spending(summaries),
    )


def _spending(summaries: Sequence[GenerationSummary]) -> list[EndpointSpending]:
    """What all shards spent, by endpoint."""
    found: dict[str, EndpointSpending] = {}
    for one in (spent for summary in summaries for spent in summary.spending):
        known = found.get(one.endpoint)
        if known is None:
            found[one.endpoint] = one
            continue
        found[one.endpoint] = EndpointSpending(
            endpoint=one.endpoint,
            calls=known.calls + one.calls,
            tokens=Tokens(
                prompt=known.tokens.prompt + one.tokens.prompt,
                completion=known.tokens.completion + one.tokens.completion,
            ),
            cost=None if one.cost is None or known.cost is None else known.cost + one.cost,
            budget_spent=known.budget_spent or one.budget_spent,
        )
    return list(found.values())


def _add(one: CategorySamples, other: CategorySamples) -> CategorySamples:
    rejected = Counter(one.rejected) + Counter(other.rejected)
    return CategorySamples(
        name=one.name,
        quota=one.quota + other.quota,
        candidates=one.candidates + other.candidates,
        kept=one.kept + other.kept,
        warmup=one.warmup + other.warmup,
        rejected=dict(sorted(rejected.items())),
        shortfall_reason=one.shortfall_reason or other.shortfall_reason,
    )


def merge_outputs(store: Store, output: str, manifests: Sequence[Manifest]) -> list[OutputFile]:
    """The files of all shards: samples stay where they are, rejections become one table."""
    samples = [f for manifest in manifests for f in manifest.outputs if f.path.partition("/")[0] in FOLDERS]
    with tempfile.TemporaryDirectory() as folder:
        parts = []
        for place, manifest in enumerate(manifests):
            (file,) = (o for o in manifest.outputs if o.path == REJECTED)
            parts.append(Path(folder) / f"{place}.parquet")
            store.download(join(Shard(place, len(manifests)).folder(output), file.path), parts[-1], file.sha256)
        whole = Path(folder) / REJECTED
        concatenate(parts, whole)
        return [*samples, store.upload(whole, join(output, REJECTED))]


def merge_galleries(store: Store, output: str, manifests: Sequence[Manifest], quotas: Sequence[Quota]) -> Gallery:
    """What a single shard would have chosen of the candidates of all."""
    gallery = Gallery(quotas)
    for place, manifest in enumerate(manifests):
        for file in (o for o in manifest.outputs if o.path == SHOWN):
            for shown in read(store.get(join(Shard(place, len(manifests)).folder(output), file.path))):
                gallery.take(shown)
    return gallery
