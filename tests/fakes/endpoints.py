"""Endpoints of a spec that are served by a FakeModel."""

import re

import pytest

from dpe_api.endpoints import Endpoint, SecretKeyRef, key_variable
from tests.fakes.openai_server import FakeModel

KEY = "sk-proj-0123456789abcdef"


def endpoint(model: FakeModel | str, *, name: str = "teacher", keyed: bool = False, **changes: object) -> Endpoint:
    """As the spec has it: with /v1."""
    url = model if isinstance(model, str) else f"{model.url}/v1"
    reference = SecretKeyRef(name="keys", key=name) if keyed else None
    fields = {"max_concurrency": 4, "timeout_seconds": 5, "api_key_secret_ref": reference, **changes}
    return Endpoint(name=name, url=url, model="gpt-fake", **fields)  # type: ignore[arg-type]


def give_key(monkeypatch: pytest.MonkeyPatch, name: str = "teacher", key: str = KEY) -> None:
    """Put a key where a pod has it."""
    monkeypatch.setenv(key_variable(name), key)


def block(text: str, name: str) -> str:
    """What stands between the markers of one part of a prompt, as a reader finds it who trusts only the code."""
    code = re.search(rf"<{name}-([0-9a-f]+)>", text)
    assert code is not None
    begin, end = f"<{name}-{code.group(1)}>\n", f"\n</{name}-{code.group(1)}>"
    assert text.count(begin) == 1
    return text.split(begin)[1].split(end)[0]
