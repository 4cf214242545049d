"""What must not be trained on (pictures and long questions of probe and benchmarks), and what earlier rounds were."""

import io
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from PIL import Image

from dpe_api.names import Stage
from dpe_jobs.generation.dedup import pixel_digest
from dpe_jobs.generation.fetching.decoding import on_white
from dpe_jobs.generation.quality.near import NearPictures
from dpe_jobs.generation.quality.texts import MOST, ReservedQuestions
from dpe_jobs.generation.roles import Rejection
from dpe_jobs.lineage.walk import sample_files, walk
from dpe_jobs.questions import IMAGE_FORMATS, batch_rows, open_parquet, read_questions
from dpe_jobs.store import Store

log = logging.getLogger(__name__)


class Reserved:
    """Pictures and long questions of question sets. Use as a context manager: it holds a file."""

    def __init__(self) -> None:
        self._exact: dict[int, str] = {}  # 64 bits of the digest: among 10^6 one is taken by accident with 1e-8
        self._near = NearPictures()
        self._questions = ReservedQuestions()
        self._full = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._near.close()

    def __len__(self) -> int:
        return len(self._exact)

    def add(self, name: str, images: Iterable[Image.Image], question: str) -> None:
        """Remember a row: its picture in each way that a candidate may show it, and its question, once.

        `name` says where it is from, for the reason of a rejection.
        """
        if not self._questions.add(question) and not self._full:
            self._full = True
            log.warning("more than %d long questions are reserved: the words of further ones are not looked for", MOST)
        for image in images:
            digest = _short(pixel_digest(image))
            if digest not in self._exact:
                self._exact[digest] = name
                self._near.add(name, image)

    def picture(self, image: Image.Image) -> Rejection | None:
        """`Contaminated` when a picture is a reserved one, or nearly."""
        name = self._exact.get(_short(pixel_digest(image)))
        if name is not None:
            return Rejection("Contaminated", f"the picture is that of {name}")
        near = self._near.find(image)
        if near is None:
            return None
        share = f"{near.agreement:.0%}"
        return Rejection("Contaminated", f"the picture shows {share} of what that of {near.name} shows")

    def question(self, question: str) -> Rejection | None:
        """`Contaminated` when a long reserved question is asked, or nearly."""
        text = self._questions.find(question)
        return None if text is None else Rejection("Contaminated", f"probe or benchmarks ask {text[:200]!r}")


def _short(digest: str) -> int:
    return int(digest[:16], 16)


def reserve(store: Store, sets: Sequence[str], beat: Callable[[], None]) -> Reserved:
    """The rows of these question sets, which may be without categories: nobody asks for them here.

    It beats at each row: a large benchmark takes its time.
    """
    reserved = Reserved()
    for uri in sets:
        where = uri.rstrip("/").rsplit("/", 1)[-1]
        for question in read_questions(store, uri, categories=False):
            beat()
            reserved.add(f"{where} row {question.id}", _as_candidates(question.image), question.question)
    log.info("%d pictures of %d question sets are reserved", len(reserved), len(sets))
    return reserved


def _as_candidates(data: bytes) -> Iterator[Image.Image]:
    """A picture as candidates of the same file look; a transparent one without its transparency, too.

    Programs that throw transparency away show what was stored beneath it.
    """
    with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
        if image.has_transparency_data:
            yield image.convert("RGB")
        yield on_white(image)


@dataclass(frozen=True, slots=True)
class Earlier:
    """A sample of an earlier round."""

    id: str
    category: str
    question: str
    image: Image.Image


def earlier_samples(store: Store, model_uri: str, beat: Callable[[], None]) -> Iterator[Earlier]:
    """What trained a model and its ancestors, by lineage. One file on disk, one batch of pictures in memory.

    It beats at each sample.
    """
    for ancestor in walk(store, model_uri):
        if not ancestor.is_data or ancestor.manifest is None or ancestor.manifest.stage != Stage.GENERATION:
            continue
        for uri, output in sample_files(ancestor):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "samples.parquet"
                store.download(uri, path, output.sha256)
                for sample in _samples_of(path):
                    beat()
                    yield sample


def _samples_of(path: Path) -> Iterator[Earlier]:
    with open_parquet(path) as file:
        for batch in file.iter_batches(batch_rows(file), columns=["id", "category", "question", "image"]):
            for row in batch.to_pylist():
                with Image.open(io.BytesIO(row["image"]["bytes"]), formats=IMAGE_FORMATS) as image:
                    yield Earlier(row["id"], row["category"], row["question"], image.convert("RGB"))
