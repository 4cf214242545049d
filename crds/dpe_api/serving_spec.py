"""`spec.serving`: the model servers that stages ask."""

from typing import Annotated

from pydantic import Field

from dpe_api.base import ApiModel
from dpe_api.fields import Name


class Serving(ApiModel):
    """vLLM replicas that answer for the base model and, later, for the candidate."""

    replicas: Annotated[int, Field(ge=1, le=64)] = 1
    """Pods."""
    gpus_per_replica: Annotated[int, Field(ge=0, le=16)] = 1
    """GPUs of one pod, and vLLM's tensor parallel size; 0 serves on CPU."""
    pool: Name = "inference"
    """Node pool, as named in the Helm values."""
    max_model_len: Annotated[int, Field(ge=64, le=1_048_576)] = 8192
    """Longest prompt and answer together, in tokens."""
    extra_args: Annotated[list[Annotated[str, Field(max_length=512)]], Field(max_length=32)] = Field(
        default_factory=list
    )
    """More command line arguments of vLLM's API server."""
    keep_running: bool = False
    """Keep the base model's servers while the candidate is trained, and let them take its weights in place instead of
    starting others. Serving and training then hold their GPUs at the same time: use different pools, or one with room
    for both."""
