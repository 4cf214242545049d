"""easy-vqa (PyPI, MIT licence) as question sets: `python -m examples.shapes.data FOLDER` writes probe, test and pool.

4000 + 1000 images of 64x64 pixels with one coloured shape each, and 48,248 questions that nobody here wrote. Its train
images are cut by content into three sets that share no image: what the base model learns from, what probes ask about,
and what an image pool offers. Its test split is the benchmark, for evaluation alone.

About 88% of its yes/no questions on colour have one answer, so every set here is balanced over the answers inside
each category: else a model that only knows the prior looks good.
"""

import argparse
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import BinaryIO

import easy_vqa
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dpe_api.artifacts import AnswerType, Manifest, OutputFile
from dpe_api.names import MANIFEST
from dpe_jobs.generation.dedup import pixel_digest
from dpe_jobs.questions import IMAGE_TYPE, Question, write_questions
from dpe_jobs.runtime import package_versions
from dpe_jobs.store import media_type, sha256_file

SHAPES = ("circle", "rectangle", "triangle")
BASIC_COLORS = ("red", "green", "blue", "yellow", "black")
FINE_COLORS = ("teal", "brown", "gray")
COLORS = BASIC_COLORS + FINE_COLORS
CATEGORIES = ("color", "color_fine", "shape", "shape_ref", "exist_color", "exist_shape", "negation")

PROBE_PER_CATEGORY = 180  # divisible by 2, 3 and 5, the numbers of answers of a category
TEST_PER_CATEGORY = 150
_POOL_GROUP = 100  # rows of a row group: one picture is read without the others

_COLOR = re.compile(rf"\b({'|'.join(COLORS)})\b")
_SHAPE = re.compile(rf"\b({'|'.join(SHAPES)})\b")


class Part(StrEnum):
    """Disjoint sets of images."""

    BASE = "base"
    PROBE = "probe"
    POOL = "pool"
    TEST = "test"


# Upper ends, in hundredths of the hash space, of the parts of the train split.
_CUTS = ((60, Part.BASE), (80, Part.PROBE), (100, Part.POOL))


@dataclass(frozen=True, slots=True)
class Row:
    """One question of easy-vqa."""

    id: str
    image: Path
    question: str
    answer: str
    category: str


def category_of(question: str, answer: str) -> str:
    """The skill that a question needs: hue (basic or fine), shape, shape by reference, existence, or negation."""
    if answer in COLORS:
        return "color_fine" if answer in FINE_COLORS else "color"
    if answer in SHAPES:
        return "shape_ref" if question.startswith("what is the") else "shape"
    if " not " in question or " no " in question:
        return "negation"
    return "exist_color" if _COLOR.search(question) else "exist_shape"


def facets_of(question: str) -> dict[str, str]:
    """What the question's text tells: the colour and the shape that it names, and whether it is negated."""
    facets = {"negated": "yes" if " not " in question or " no " in question else "no"}
    if color := _COLOR.search(question):
        facets["color"] = color[1]
    if shape := _SHAPE.search(question):
        facets["shape"] = shape[1]
    return facets


def pixel_key(picture: Path | BinaryIO) -> str:
    """sha256 of an image's size and RGB pixels: equal pictures have equal keys, however they are encoded."""
    with Image.open(picture) as image:
        return pixel_digest(image)


def part_of(key: str) -> Part:
    """The part of the train split that a picture belongs to. By content: duplicates always fall into one part."""
    hundredth = int(key[:8], 16) * 100 >> 32
    return next(part for end, part in _CUTS if hundredth < end)


@cache
def _images(split: str) -> dict[int, tuple[Path, str]]:
    paths = easy_vqa.get_train_image_paths() if split == "train" else easy_vqa.get_test_image_paths()
    return {number: (Path(path), pixel_key(Path(path))) for number, path in sorted(paths.items())}


@cache
def rows(part: Part) -> tuple[Row, ...]:
    """All questions about the images of one part, in easy-vqa's order. Pictures of the test split are in TEST alone."""
    split = "test" if part is Part.TEST else "train"
    images = _images(split)
    if part is not Part.TEST:
        benchmark = {key for _, key in _images("test").values()}
        images = {n: (p, k) for n, (p, k) in images.items() if k not in benchmark and part_of(k) is part}
    questions, answers, numbers = easy_vqa.get_test_questions() if split == "test" else easy_vqa.get_train_questions()
    return tuple(
        Row(f"{split}-{line:05d}", images[number][0], question, answer, category_of(question, answer))
        for line, (question, answer, number) in enumerate(zip(questions, answers, numbers, strict=True))
        if number in images
    )


def by_answer(part: Part) -> dict[str, dict[str, list[Row]]]:
    """Rows by category and answer, both sorted."""
    found: dict[str, dict[str, list[Row]]] = {c: defaultdict(list) for c in CATEGORIES}
    for row in rows(part):
        found[row.category][row.answer].append(row)
    return {c: dict(sorted(answers.items())) for c, answers in found.items()}


def balanced(part: Part, per_category: int) -> list[Row]:
    """`per_category` rows of each category, each answer equally often, no question asked twice about one image.

    The choice follows a hash of the row's id, so it is the same everywhere. ValueError: there are too few rows.
    """
    chosen: list[Row] = []
    for category, answers in by_answer(part).items():
        share, left_over = divmod(per_category, len(answers))
        for place, (answer, pool) in enumerate(answers.items()):
            wanted = share + (place < left_over)
            unique = {(row.image, row.question): row for row in reversed(pool)}.values()
            ordered = sorted(unique, key=lambda row: hashlib.sha256(row.id.encode()).digest())
            if len(ordered) < wanted:
                raise ValueError(f"{part}: {category} has {len(ordered)} rows with answer {answer!r}, not {wanted}")
            chosen += ordered[:wanted]
    return chosen


def question(row: Row) -> Question:
    """A row in the form that stages read."""
    return Question(
        id=row.id,
        image=row.image.read_bytes(),
        question=row.question,
        answer=row.answer,
        answer_type=AnswerType.YES_NO if row.answer in ("yes", "no") else AnswerType.EXACT,
        category=row.category,
        facets=facets_of(row.question),
        source=f"easy-vqa {package_versions('easy-vqa')['easy-vqa']}",
        licence="MIT",
    )


def output_file(path: Path) -> OutputFile:
    """A file's entry in the manifest that lies beside it."""
    return OutputFile(
        path=path.name, size=path.stat().st_size, sha256=sha256_file(path), media_type=media_type(path.name)
    )


def write_set(chosen: Sequence[Row], folder: Path) -> Manifest:
    """Write one question set: a Parquet file and the manifest that makes it an artifact."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "part-00000.parquet"
    write_questions(map(question, chosen), path)
    counts = {c: sum(row.category == c for row in chosen) for c in CATEGORIES}
    manifest = Manifest(
        stage="dataset",
        created_at=datetime.now(UTC),
        outputs=[output_file(path)],
        summary={"rows": len(chosen), "categories": counts},
        versions={"easy-vqa": package_versions("easy-vqa")["easy-vqa"]},
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json(by_alias=True, indent=1))
    return manifest


def write_all(folder: Path) -> dict[str, Manifest]:
    """Write probe, test set and pool of the example as subfolders; returns their manifests by folder name."""
    return {
        "probe": write_set(balanced(Part.PROBE, PROBE_PER_CATEGORY), folder / "probe"),
        "test": write_set(balanced(Part.TEST, TEST_PER_CATEGORY), folder / "test"),
        "pool": write_pool(folder / "pool"),
    }


def known_pictures(part: Part) -> dict[str, dict[str, str]]:
    """Shape and colour of each picture of a part by its pixel key, as far as easy-vqa's own answers tell them."""
    seen: dict[Path, dict[str, str]] = defaultdict(dict)
    for row in rows(part):
        facts, named = seen[row.image], facets_of(row.question)
        negated = named.pop("negated") == "yes"
        if row.answer not in ("yes", "no"):
            named["shape" if row.answer in SHAPES else "color"] = row.answer
        elif (row.answer == "yes") == negated:
            continue  # what it names is not there
        facts |= named
    return {pixel_key(path): facts for path, facts in seen.items()}


def write_pool(folder: Path) -> Manifest:
    """Write the pictures of the pool, each once, and nothing of what is asked about them."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "part-00000.parquet"
    pictures = {pixel_key(image): image for image in {row.image for row in rows(Part.POOL)}}
    columns = {
        "image": [{"bytes": pictures[key].read_bytes(), "path": None} for key in sorted(pictures)],
        "licence": ["MIT"] * len(pictures),
        "title": [f"easy-vqa {package_versions('easy-vqa')['easy-vqa']}"] * len(pictures),
    }
    schema = pa.schema([("image", IMAGE_TYPE), ("licence", pa.string()), ("title", pa.string())])
    pq.write_table(pa.Table.from_pydict(columns, schema=schema), path, row_group_size=_POOL_GROUP, compression="zstd")
    manifest = Manifest(
        stage="dataset",
        created_at=datetime.now(UTC),
        outputs=[output_file(path)],
        summary={"rows": len(pictures)},
        versions={"easy-vqa": package_versions("easy-vqa")["easy-vqa"]},
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json(by_alias=True, indent=1))
    return manifest


def shared_images(parts: Iterable[Part] = tuple(Part)) -> int:
    """How many pictures occur in more than one part; 0 by construction, counted here from the pixels."""
    seen: dict[str, Part] = {}
    shared = 0
    for part in parts:
        for key in {pixel_key(path) for path in {row.image for row in rows(part)}}:
            shared += seen.setdefault(key, part) is not part
    return shared


def main() -> None:
    """Write both sets and say what is in them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    write_all(folder)
    for part in Part:
        print(f"{part}: {len({row.image for row in rows(part)})} images, {len(rows(part))} questions")
    print(f"images in more than one part: {shared_images()}")


if __name__ == "__main__":
    main()
