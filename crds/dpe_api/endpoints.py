"""`spec.endpoints`: models of others behind OpenAI-compatible APIs."""

from typing import Annotated

from pydantic import Field

from dpe_api.base import ApiModel
from dpe_api.fields import Name, rules

HttpUrl = Annotated[str, Field(min_length=8, max_length=512, pattern=r"^https?://[^\s?#@/]+(/[^\s?#]*)?$")]


class SecretKeyRef(ApiModel):
    """A key of a Secret in the iteration's namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the Secret."""
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
    """Key inside it."""


class Price(ApiModel):
    """What an endpoint charges, in any currency."""

    input: Annotated[float, Field(ge=0, le=1_000_000)]
    """For a million prompt tokens."""
    output: Annotated[float, Field(ge=0, le=1_000_000)]
    """For a million tokens of answers."""


class SpendingLimit(ApiModel):
    """What generation stops at, cleanly, with the samples that it has."""

    model_config = rules(
        ("has(self.tokens) || has(self.cost)", "spec.endpoints[].budget needs tokens, cost or both", ""),
    )
    tokens: Annotated[int, Field(ge=1, le=10**15)] | None = None
    """Prompts and answers together."""
    cost: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """In the currency of `price`."""


class Endpoint(ApiModel):
    """A model behind an OpenAI-compatible API."""

    model_config = rules(
        (
            "!has(self.budget) || !has(self.budget.cost) || has(self.price)",
            "spec.endpoints[].budget.cost needs price: write what a million tokens cost",
            ".budget.cost",
        )
    )
    name: Name
    """How other fields refer to it, and its label in metrics."""
    url: HttpUrl
    """Base address as OpenAI clients take it, with /v1 where the server has one; no password or key in it."""
    model: Annotated[str, Field(min_length=1, max_length=256)]
    """Sent as `model` with each request."""
    api_key_secret_ref: SecretKeyRef | None = None
    """Where the API key is; left out: requests carry none."""
    max_concurrency: Annotated[int, Field(ge=1, le=1024)] = 32
    """Requests in flight."""
    timeout_seconds: Annotated[int, Field(ge=1, le=3600)] = 120
    """Longest wait for one answer."""
    max_tokens: Annotated[int, Field(ge=1, le=131072)] = 1024
    """Longest answer, in tokens."""
    price: Price | None = None
    """What its tokens cost; left out: tokens are counted, money is not."""
    budget: SpendingLimit | None = None
    """Most that generation may spend on it, over all attempts and shards; left out: no limit. What a diagnosis asks is
    bounded by sampleSize and maxCalls."""


def key_variable(endpoint: str) -> str:
    """Environment variable that holds an endpoint's API key in a job pod."""
    return "DPE_ENDPOINT_KEY_" + endpoint.upper().replace("-", "_")


def source_key_variable(number: int) -> str:
    """Environment variable that holds the API key of spec.generation.sources[number] in a job pod."""
    return f"DPE_SOURCE_KEY_{number}"
