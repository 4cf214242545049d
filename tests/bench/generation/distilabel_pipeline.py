"""The questions of `tests.bench.generation.throughput` by a pipeline of distilabel, in an environment of its own.

    PYTHON_WITH_DISTILABEL tests/bench/generation/distilabel_pipeline.py URL QUESTIONS CONCURRENCY

QUESTIONS is a file of JSON lines with `instruction` and `image` (base64 of a PNG). It imports nothing of the project.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distilabel.models.llms import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGenerationWithImage


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The questions."""
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def main(url: str, questions: Path, concurrency: int) -> None:
    """As its documentation has it: an input batch is asked at once, and the batches come one after the other."""
    with Pipeline(name="bench", cache_dir=questions.parent / "cache") as pipeline:
        load = LoadDataFromDicts(data=list(rows(questions)), batch_size=concurrency)
        llm = OpenAILLM(
            base_url=f"{url}/v1",
            model="model",
            api_key="-",
            max_retries=10,
            timeout=120,
            generation_kwargs={"temperature": 1.0, "max_new_tokens": 512},
        )
        ask = TextGenerationWithImage(
            llm=llm, image_type="base64", input_batch_size=concurrency, num_generations=9, group_generations=True
        )
        load >> ask
    made = pipeline.run(use_cache=False)
    answered = sum(row["generation"] is not None for row in made["default"]["train"])
    print(f"distilabel: {answered} questions answered")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
