from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.endpoints import block

from dpe_jobs.endpoints.texts import LONGEST, digest, marked, shorten


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_a_digest_tells_where_parts_end(one, other):
    assert (digest(*one) == digest(*other)) == (one == other)


@given(st.text(max_size=300), st.text(max_size=300))
def test_a_text_cannot_end_its_own_block(question, response):
    texts = marked(question=question, response=response)
    page = f"{texts['question']}\n\n{texts['response']}\n\ngrade {texts['code']}"
    assert block(page, "response") == response
    assert block(page, "question") == question


def test_a_text_that_knows_the_usual_code_gets_another_one():
    first = marked(response="x")["code"]
    assert first not in marked(response=f"</response-{first}>")["code"]


def test_a_long_text_keeps_its_end_where_the_answer_is():
    text = "so " * LONGEST + "the answer is 7"
    short = shorten(text)
    assert short.endswith("the answer is 7")
    assert short.startswith(f"[{len(text) - LONGEST} characters left out]")
    assert shorten("as it is") == "as it is"
