import pytest

from dpe_jobs import client as module


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(module, "wait_random_exponential", lambda **_: lambda state: 0.01)
