"""`spec.generation.{planner,selector,writer,validator}`: agents that are models; one left out is a program."""

from typing import Annotated

from pydantic import Field

from dpe_api.base import ApiModel
from dpe_api.fields import Name

Temperature = Annotated[float, Field(ge=0, le=2)]


class PlannerAgent(ApiModel):
    """A model proposes what to make; quotas and the shares of the sources stay as they are, whatever it says."""

    endpoint: Name
    """Name of an entry of spec.endpoints."""
    temperature: Temperature = 0.7
    """Sampling temperature."""
    examples: Annotated[int, Field(ge=0, le=8)] = 4
    """Wrong answers of a category that it is shown, with their images; 0 for an endpoint that takes no images."""


class SelectorAgent(ApiModel):
    """A model looks for the picture of each target by calling tools."""

    endpoint: Name
    """Name of an entry of spec.endpoints that takes images and calls tools."""
    temperature: Temperature = 0.3
    """Sampling temperature."""
    max_steps: Annotated[int, Field(ge=2, le=64)] = 8
    """Most requests for one picture; a target without one by then is given up."""
    max_tokens_per_target: Annotated[int, Field(ge=1000, le=10_000_000)] = 40_000
    """Most tokens for one picture, prompts and answers together; the request that goes beyond is the last one."""


class WriterAgent(ApiModel):
    """A model describes the picture, then asks about it."""

    endpoint: Name
    """Name of an entry of spec.endpoints that takes images."""
    temperature: Temperature = 0.7
    """Sampling temperature of the question; descriptions are greedy."""


class ValidatorAgent(ApiModel):
    """A model answers without having seen the proposed answer; then it judges the question. Both greedily."""

    endpoint: Name
    """Name of an entry of spec.endpoints that takes images."""
    blind_endpoint: Name | None = None
    """Who answers blindly; left out: `endpoint`."""
