import pytest
from tenacity import wait_none

from dpe_jobs.generation.fetching import download as module


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(module, "wait_random_exponential", lambda **_: wait_none())
