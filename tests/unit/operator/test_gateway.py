from hypothesis import given
from hypothesis import strategies as st

from dpe_operator.gateway import merge_patch

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
