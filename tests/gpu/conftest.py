"""Stages on a real GPU: `python -m pytest tests/gpu` on a machine with CUDA, vLLM and MinIO's binary in PATH.

`make test` has no GPU and leaves this folder out.
"""

import pytest
import torch
from tests.training.conftest import store_address, world

__all__ = ["store_address", "world"]


@pytest.fixture(scope="session", autouse=True)
def gpu() -> str:
    """Name of the GPU; without one these tests fail, they are never skipped."""
    assert torch.cuda.is_available(), "tests/gpu needs a GPU: run it on a machine with CUDA"
    return torch.cuda.get_device_name()
