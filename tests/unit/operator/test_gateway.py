import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.client.exceptions import ApiException
from tests.unit.operator.given import ITERATION

from dpe_operator.gateway import Conflict, Gateway, NotAdmitted, merge_patch
from dpe_operator.plan import Child, Note

DOCUMENTS = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from("abc"), DOCUMENTS, max_size=3)


def applied(document: object, patch: object) -> object:
    """RFC 7396, section 2."""
    if not isinstance(patch, dict):
        return patch
    result = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = applied(result.get(key), value)
    return result


@given(OBJECTS, OBJECTS)
def test_a_merge_patch_turns_the_old_status_into_the_new_one(old, new):
    assert applied(old, merge_patch(old, new)) == new


def test_an_unchanged_status_needs_no_patch():
    assert merge_patch({"a": {"b": 1}}, {"a": {"b": 1}}) == {}


class Answers(Gateway):
    """An API server that answers every request with one error."""

    def __init__(self, status: int, message: str) -> None:
        self.error = ApiException(status=status, reason="no")
        self.error.body = json.dumps({"message": message})
        self.requests: list[tuple[str, str, Any]] = []

    async def _request(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        self.requests.append((method, path, more.get("body")))
        raise self.error


HOOK = 'Internal error occurred: failed calling webhook "jobs.example.org": context deadline exceeded'


@pytest.mark.parametrize(("status", "message"), [(403, "exceeded quota"), (422, "invalid"), (500, HOOK)])
async def test_what_is_said_against_a_child_is_told_of_that_child(status: int, message: str) -> None:
    with pytest.raises(NotAdmitted, match=r"Job j: .*") as told:
        await Answers(status, message).create(ITERATION, Child("Job", "j", {}))
    assert message in str(told.value)
    await Answers(status, message).note(ITERATION, Note("Retry", "m", "k"))


async def test_an_api_server_in_trouble_says_nothing_against_a_child() -> None:
    with pytest.raises(ApiException):
        await Answers(500, "etcdserver: request timed out").create(ITERATION, Child("Job", "j", {}))


async def test_a_finalizer_is_taken_off_the_version_that_was_seen_and_others_stay() -> None:
    api = Answers(409, "changed")
    with pytest.raises(Conflict):
        await api.release(
            ITERATION, {"resourceVersion": "7", "finalizers": ["a/b", "dpe.dev/operator"]}, "dpe.dev/operator"
        )
    ((method, path, body),) = api.requests
    assert (method, path.rsplit("/", 1)[-1]) == ("PATCH", ITERATION.name)
    assert body == {"metadata": {"uid": ITERATION.uid, "resourceVersion": "7", "finalizers": ["a/b"]}}
