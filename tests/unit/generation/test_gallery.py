"""gallery.html: what it shows of a generation, that it is bounded, and that hostile text stays text."""

import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes import worlds
from tests.fakes.memory_store import MemoryStore
from tests.fakes.openai_server import Asked, Reply, serving
from tests.unit.generation import world

from dpe_api.artifacts import AnswerType
from dpe_jobs.generation import gallery
from dpe_jobs.generation.gallery import KEPT, SHOWN, Gallery, Shown, read
from dpe_jobs.generation.run import run
from dpe_jobs.generation.shards import INDEX
from dpe_jobs.questions import Question

PAGE = f"{world.OUT}/gallery.html"


class Elements(HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def having(self, attribute: str) -> list[dict[str, str | None]]:
        return [attributes for _, attributes in self.found if attribute in attributes]


def generated(store: MemoryStore, **changes: object) -> str:
    with serving(world.solves(0.5)) as model:
        run(world.launch(model.url, **changes), store)
    return store.get(PAGE).decode()


def figures_of(text: str) -> dict[str, str]:
    """By the candidate's id."""
    pattern = r'<figure class="candidate" data-candidate="([^"]+)".*?</figure>'
    return {found[1]: found[0] for found in re.finditer(pattern, text, re.DOTALL)}


def candidate(number: int, category: str, outcome: str) -> Shown:
    return Shown(f"r0-{category}-{number}", category, outcome, "render:shapes", "weak", ("p-1",), made=True)


def test_the_page_is_in_the_manifest_and_says_how_many_of_how_many_are_shown(store):
    text = generated(store)
    said = world.summary(store)
    manifest = store.manifest(world.OUT)
    assert "gallery.html" in {output.path for output in manifest.outputs}
    elements = Elements(text)
    (kept,), (shown,) = elements.having("data-kept")[:1], elements.having("data-shown")
    assert int(kept["data-kept"]) == said.kept == 22
    candidates = elements.having("data-candidate")
    assert int(shown["data-shown"]) == len(candidates)
    for category in said.categories:
        for outcome, count in {KEPT: category.kept, **category.rejected}.items():
            here = [
                c for c in candidates if c["data-outcome"] == outcome and f"-{category.name}-" in c["data-candidate"]
            ]
            assert len(here) <= min(count, gallery.PER_OUTCOME)
            assert f"{len(here)} of {count:,}" in text
            if outcome != "Surplus":  # of those that were given up nobody kept the picture
                assert len(here) == min(count, gallery.PER_OUTCOME)


def test_each_candidate_has_picture_question_answer_pass_rate_and_reason(store):
    text = generated(store)
    rows = {row["id"]: row for row in world.samples(store) + world.table(store, "rejected.parquet")}
    figures = figures_of(text)
    assert {rows[name].get("reason", KEPT) for name in figures} >= {KEPT, "TooEasy", "TooHard"}
    for name, figure in figures.items():
        row = rows[name]
        assert "data:image/webp;base64," in figure
        assert row["question"] in figure
        assert f'<dd class="answer text" dir="auto">{row["answer"]}</dd>' in figure
        if row["pass_rate"] is not None:
            assert f"{100 * row['pass_rate']:.1f}%" in figure
        if "reason" in row:
            assert row["reason"] in figure
            assert row["detail"] in figure


def test_diagnosis_examples_are_linked_and_shown_with_the_wrong_answer_and_its_picture(store):
    teal = Question("color_fine-teal", worlds.picture("red"), "which?", "teal", AnswerType.EXACT, "color_fine")
    worlds.upload(store, worlds.PROBE_URI, [teal, world.reserved_question(1)])
    text = generated(store)
    (anchor,) = re.findall(r'<figure class="failure" id="(example-\d+)" data-failure="color_fine-teal">\n<img', text)
    asked_for = {r["id"]: r["provenance"]["diagnosis_ids"] for r in world.samples(store)}
    linked = [name for name, figure in figures_of(text).items() if f'<a href="#{anchor}">' in figure]
    assert linked
    assert all("color_fine-teal" in asked_for.get(name, ["color_fine-teal"]) for name in linked)


def test_a_killed_generation_shows_the_same_candidates_as_an_undisturbed_one(store):
    def dies(asked: Asked) -> list[str] | Reply:
        return Reply(status=400) if asked.number >= 20 else world.solves(0.5)(asked)

    def figures(text: str) -> dict[str, str]:
        # how many are begun beyond the need depends on who was faster, and so do the numbers of the examples they name
        found = {name: re.sub(r"#example-\d+", "#example", figure) for name, figure in figures_of(text).items()}
        return {name: figure for name, figure in found.items() if 'data-outcome="Surplus"' not in figure}

    whole = MemoryStore()
    world.fill(whole)
    with serving(dies) as model, pytest.raises(Exception, match="got no answer"):
        run(world.launch(model.url, max_error_rate=0), store)
    assert figures(generated(store, attempt=2)) == figures(generated(whole))


def test_shards_make_one_page_of_all_whoever_comes_last(store, monkeypatch):
    with serving(world.solves(0.5)) as model:
        for index in (2, 0, 1):
            monkeypatch.setenv(INDEX, str(index))
            run(world.launch(model.url, generation={"shards": 3}), store)
    assert [uri for uri in store.objects if uri.endswith("gallery.html")] == [PAGE]
    shown = {a["data-candidate"] for a in Elements(store.get(PAGE).decode()).having("data-candidate")}
    assert {name.split("-")[0] for name in shown} == {"r0s00", "r0s01", "r0s02"}
    first, manifest = store.get(PAGE), store.objects.pop(f"{world.OUT}/manifest.json")
    run(world.launch("http://x", generation={"shards": 3}), store)
    assert store.get(PAGE) == first, "who merges at the same time puts the same page"
    assert store.objects[f"{world.OUT}/manifest.json"] == manifest


def test_the_page_runs_nothing_and_loads_nothing_and_hostile_text_is_text(store):
    evil = '</style><script>x</script>" onload="x" {{ 7 * 7 }}'
    diagnosis = f"{world.DIAGNOSIS}/report.json"
    report = json.loads(store.get(diagnosis))
    weakness = {"category": "color_fine", "text": evil, "count": 3, "examples": ["color_fine-teal"]}
    store.put(diagnosis, json.dumps(report | {"attribution": {"weaknesses": [weakness]}}).encode())
    text = generated(store)
    assert "&lt;script&gt;" in text
    assert "{{ 7 * 7 }}" in text
    elements = Elements(text)
    assert not [tag for tag, _ in elements.found if tag in ("script", "iframe", "object", "embed", "form", "base")]
    for _, attributes in elements.found:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    assert "url(" not in text
    assert "default-src 'none'" in text


@given(st.integers(1, 80), st.integers(1, 12), st.integers(1, 14))
def test_what_is_shown_is_bounded_and_every_outcome_has_its_first_before_any_its_second(categories, outcomes, each):
    names = [f"c{n}" for n in range(categories)]
    chosen = Gallery(world.quotas(dict.fromkeys(names, 5)))
    for name in names:
        for outcome in range(outcomes):
            for number in range(each):
                chosen.take(candidate(100 * outcome + number, name, f"Reason{outcome}"))
    shown = chosen.shown()
    assert len(shown) <= gallery.MAX_SHOWN
    by_group: dict[tuple[str, str], int] = {}
    for one in shown:
        by_group[one.category, one.outcome] = by_group.get((one.category, one.outcome), 0) + 1
    counts = [*by_group.values()] or [0]
    assert max(counts) <= gallery.PER_OUTCOME
    pictured = min(categories, 60) * outcomes
    assert max(counts) - (min(counts) if len(counts) == pictured else 0) <= 1


@given(st.permutations(range(60)), st.integers(1, 5))
def test_the_choice_depends_neither_on_the_order_nor_on_how_it_was_cut_into_shards(order, shards):
    quotas = world.quotas({"a": 5, "b": 5})

    def chosen(numbers):
        made = Gallery(quotas)
        for n in numbers:
            made.take(candidate(n, "ab"[n % 2], ("Kept", "TooHard", "TooEasy")[n % 3]))
        return made

    merged = Gallery(quotas)
    for shard in range(shards):
        for one in chosen(order[shard::shards]):
            merged.take(one)
    assert merged.shown() == chosen(range(60)).shown()


def test_what_a_shard_wrote_is_read_back_whatever_the_text(tmp_path):
    made = Gallery(world.quotas({"a\nb": 5}))
    one = Shown(
        "x\u2028y", "a\nb", KEPT, "s", "w\r\n", ("p\n1",), True, question='{"', choices=("a", "b"), pass_rate=0.5
    )
    made.take(one)
    made.write(tmp_path / SHOWN)
    assert read((tmp_path / SHOWN).read_bytes()) == [one]
