import time

import pytest
from tests.fakes import worlds
from tests.fakes.memory_store import MemoryStore
from tests.fakes.openai_server import Asked, serving

from dpe_jobs import client, patience
from dpe_jobs.diagnosis.run import run as diagnose
from dpe_jobs.patience import patience_s
from dpe_jobs.runtime import Transient


@pytest.mark.parametrize(
    ("max_tokens", "sequences", "seconds"),
    [(4, 320, 120.0), (8192, 32, 819.2), (8192, 2048, 6553.6), (32768, 256, 3276.8)],
)
def test_the_longer_answers_may_be_and_the_more_queue_the_longer_they_are_waited_for(max_tokens, sequences, seconds):
    assert patience_s(max_tokens, sequences) == pytest.approx(seconds)


@pytest.mark.parametrize("token_s", [0.0, 5.0])
def test_an_answer_is_waited_for_as_long_as_its_length_allows(monkeypatch, token_s):
    monkeypatch.setattr(patience, "SHORTEST_S", 0.05)
    monkeypatch.setattr(patience, "SLOWEST_TOKEN_S", token_s)
    monkeypatch.setattr(client, "GIVE_UP_S", 0.0)
    store = MemoryStore()
    worlds.fill(store)

    def slowly(asked: Asked) -> list[str]:
        time.sleep(0.3)
        return worlds.knows("color")(asked)

    with serving(slowly) as model:
        if token_s == 0.0:
            with pytest.raises(Transient, match="ReadTimeout"):
                diagnose(worlds.diagnosis(model.url), store)
        else:
            diagnose(worlds.diagnosis(model.url), store)
