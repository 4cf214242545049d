import io
import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.browser import diagnosed

from dpe_api.diagnosis_spec import Diagnosis
from dpe_jobs.diagnosis import failures, page

AT = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


class Elements(HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def having(self, attribute):
        return [attributes for _, attributes in self.found if attribute in attributes]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    items, questions = diagnosed.answer(diagnosed.shapes(30), folder)
    report, quotas = diagnosed.report(items, Diagnosis())
    page.write(report, quotas, items, questions, folder / page.PAGE, settings=Diagnosis(), created_at=AT)
    return (folder / page.PAGE).read_text(), report, quotas, pq.read_table(items).to_pylist()


def test_figures_are_those_of_the_report(written):
    text, report, quotas, _ = written
    rows = {a["data-category"]: a for a in Elements(text).having("data-category")}
    assert list(rows) == [c.name for c in sorted(report.of("probe").categories, key=lambda c: c.accuracy.value)]
    for category in report.of("probe").categories:
        assert float(rows[category.name]["data-accuracy"]) == category.accuracy.value
        assert int(rows[category.name]["data-n"]) == category.n
    assert sum(int(a["data-quota"]) for a in rows.values()) == sum(q.quota for q in quotas)
    assert f"{100 * report.of('probe').macro.value:.1f}%" in text


def test_nothing_is_loaded_and_nothing_runs(written):
    elements = Elements(written[0])
    assert not [tag for tag, _ in elements.found if tag in ("script", "iframe", "object", "embed", "form", "base")]
    for _, attributes in elements.found:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
    assert "url(" not in written[0]
    assert "default-src 'none'" in written[0]


def test_every_image_has_an_alternative_text(written):
    images = [attributes for tag, attributes in Elements(written[0]).found if tag == "img"]
    assert images
    assert all(attributes["alt"] for attributes in images)


def test_a_diagnosis_without_wrong_answers_without_quotas_and_without_attribution_has_a_page(tmp_path):
    questions = diagnosed.shapes(30)
    items, asked = diagnosed.answer(questions, tmp_path)
    report, _ = diagnosed.report(items, Diagnosis())
    rows = [r | {"correct": r["correct"] or None} for r in pq.read_table(items).to_pylist()]
    pq.write_table(diagnosed.table(rows), items)
    bare = report.model_copy(update={"attribution": None})
    page.write(bare, [], items, asked, tmp_path / "r.html", settings=Diagnosis(), created_at=AT)
    text = (tmp_path / "r.html").read_text()
    assert "No answer was wrong." in text
    assert "quota" not in re.sub(r"<style>.*</style>", "", text, flags=re.DOTALL).split("How to read")[0]


def test_weaknesses_found_by_rules_are_told_from_those_that_an_endpoint_saw(tmp_path):
    items, asked = diagnosed.answer(diagnosed.shapes(30), tmp_path)
    report, quotas = diagnosed.report(items, Diagnosis())
    texts = []
    for looked_at in (report.attribution.looked_at, 0):
        attribution = report.attribution.model_copy(update={"looked_at": looked_at, "unmerged": ["color"]})
        said = report.model_copy(update={"attribution": attribution})
        page.write(said, quotas, items, asked, tmp_path / "r.html", settings=Diagnosis(), created_at=AT)
        texts.append((tmp_path / "r.html").read_text())
    assert "An endpoint looked at" in texts[0]
    assert "By rules" in texts[1]


def png(width, height, random=None):
    pixels = (random or np.random.default_rng(0)).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (2000, 1500), (4000, 3), (320, 320)])
def test_an_image_becomes_small_whatever_it_is(size):
    picture = failures.shrink(png(*size))
    assert max(picture.width, picture.height) <= failures.SIDE_PIXELS
    assert len(picture.uri) <= failures.MAX_IMAGE_BYTES * 4 / 3 + 40


@pytest.mark.parametrize("data", [b"", b"no image", png(64, 64)[:200]])
def test_what_does_not_decode_is_no_picture(data):
    assert failures.shrink(data) is None


def test_text_is_cut_and_loses_its_control_characters():
    assert failures.readable("a\x00b\x1b[31m\nc", 20) == "ab[31m\nc"
    assert failures.readable("x" * 100, 10) == "x" * 10 + "…"
