import pytest
from tenacity import wait_none
from tests.fakes.image_searches import KEY

from dpe_api.endpoints import source_key_variable
from dpe_jobs.generation.fetching import download
from dpe_jobs.generation.search import api


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    for module in (api, download):
        monkeypatch.setattr(module, "wait_random_exponential", lambda **_: wait_none())


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv(source_key_variable(1), f"{KEY}\n")
