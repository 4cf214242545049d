from collections import Counter

import pyarrow.parquet as pq
import pytest
from examples.shapes import data
from examples.shapes.data import Part
from examples.shapes.upload import upload
from PIL import Image
from tests.fakes.memory_store import MemoryStore

from dpe_api.artifacts import Manifest
from dpe_jobs.generation.quality.near import NearPictures
from dpe_jobs.generation.render.shapes import Shapes
from dpe_jobs.questions import read_questions
from dpe_jobs.store import sha256_file


def test_no_image_is_in_two_parts():
    assert data.shared_images() == 0
    assert sum(len({row.image for row in data.rows(part)}) for part in Part) == 5000


@pytest.mark.parametrize(
    ("part", "count"), [(Part.PROBE, data.PROBE_PER_CATEGORY), (Part.TEST, data.TEST_PER_CATEGORY)]
)
def test_answers_are_balanced_inside_each_category(part, count):
    chosen = data.balanced(part, count)
    assert len(chosen) == len({row.id for row in chosen}) == count * len(data.CATEGORIES)
    for category in data.CATEGORIES:
        answers = Counter(row.answer for row in chosen if row.category == category)
        assert len(answers) == {"color": 5, "color_fine": 3, "shape": 3, "shape_ref": 3}.get(category, 2)
        assert len(set(answers.values())) == 1


def test_asking_for_more_rows_than_there_are_says_which_category_is_short():
    with pytest.raises(ValueError, match=r"probe: color has \d+ rows with answer .*, not 120"):
        data.balanced(Part.PROBE, 600)


def test_facets_are_what_the_question_says():
    assert data.facets_of("is there not a teal shape?") == {"negated": "yes", "color": "teal"}
    assert data.facets_of("what color is the circle?") == {"negated": "no", "shape": "circle"}


def test_generated_pictures_are_read_by_a_reader_that_reads_easy_vqa():
    program = Shapes()
    for part in Part:
        for row in data.rows(part)[::40]:
            with Image.open(row.image) as image:
                assert program.answer(image, row.question) == row.answer, row


def test_probe_and_test_pictures_are_not_near_each_other():
    def pictures(part):
        for path in {row.image for row in data.rows(part)}:
            with Image.open(path) as image:
                yield image.convert("RGB")

    with NearPictures() as reserved:
        for number, image in enumerate(pictures(Part.TEST)):
            reserved.add(str(number), image)
        near = sum(reserved.find(image) is not None for image in pictures(Part.PROBE))
    assert near <= 40, "of 838: as many as chance makes among so simple pictures"


def test_written_sets_read_back_with_manifests_that_hold(tmp_path):
    data.write_all(tmp_path)
    for name, rows in (("probe", 1260), ("test", 1050)):
        manifest = Manifest.model_validate_json((tmp_path / name / "manifest.json").read_text())
        (output,) = manifest.outputs
        assert output.sha256 == sha256_file(tmp_path / name / output.path)
        assert pq.read_metadata(tmp_path / name / output.path).num_rows == rows


def test_upload_is_idempotent_and_mends_what_was_changed():
    store = MemoryStore()
    first = upload(store, "s3://dpe")
    data_sets = [f"s3://dpe/data/shapes/{name}" for name in ("probe", "test", "pool", "pool/_index")]
    assert first == dict.fromkeys([*data_sets, "s3://dpe/models/shapes-base"], True)
    before = dict(store.objects)
    assert set(upload(store, "s3://dpe").values()) == {False}
    assert store.objects == before
    assert len(list(read_questions(store, "s3://dpe/data/shapes/probe"))) == 1260
    assert store.manifest("s3://dpe/models/shapes-base").stage == "model"

    store.delete(["s3://dpe/data/shapes/test/manifest.json"])
    store.put("s3://dpe/data/shapes/test/part-00009.parquet", b"left behind")
    changed = upload(store, "s3://dpe")
    assert [uri for uri, written in changed.items() if written] == ["s3://dpe/data/shapes/test"]
    assert "s3://dpe/data/shapes/test/part-00009.parquet" not in store.objects
