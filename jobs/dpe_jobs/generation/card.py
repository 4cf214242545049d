"""`README.md` beside the samples: a dataset card in the form of Hugging Face's, whose front matter says what to load.

`datasets.load_dataset(FOLDER)` then gives the samples with their pictures, and with `"rejected"` the rejections.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from dpe_api.artifacts import GenerationSummary
from dpe_api.launch import GenerationLaunch
from dpe_jobs.diagnosis.page import percent, short
from dpe_jobs.generation.samples import REJECTED, SAMPLES, WARMUP

CARD = "README.md"
_PUNCTUATION = re.compile(r"([!\"#$%&'()*+;<=>?@\[\\\]^`{|}~]|(?<!\w)_|_(?!\w))")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10**7, "1M<n<10M"))
_LARGER = "10M<n<100M"
# what huggingface.co/docs/hub/repositories-licenses lists and pictures are published under
_HUB_LICENCES = frozenset({
    "agpl-3.0", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0",
    "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0",
    "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0",
    "cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0", "gfdl", "gpl-2.0", "gpl-3.0", "isc", "lgpl-3.0",
    "mit", "odbl", "odc-by", "ofl-1.1", "pddl", "unlicense", "wtfpl", "zlib",
})  # fmt: skip


def write(
    summary: GenerationSummary,
    launch: GenerationLaunch,
    model_sha256: str,
    versions: Mapping[str, str],
    out: Path,
    created_at: datetime,
) -> None:
    """Write the card. `versions` are the manifest's: of packages, and hashes of prompts."""
    environment = Environment(
        loader=PackageLoader("dpe_jobs.generation", "templates"),
        autoescape=False,  # Markdown: `cell` escapes
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(cell=cell, percent=percent)
    text = environment.get_template("card.md.jinja").render(
        front=yaml.safe_dump(front_matter(summary, launch), sort_keys=False, allow_unicode=True),
        summary=summary,
        launch=launch,
        model_sha256=model_sha256,
        prompts=prompts_hash(versions),
        packages={name: version for name, version in versions.items() if not name.startswith("prompt/")},
        created_at=created_at,
    )
    out.write_text(text, encoding="utf-8")


def front_matter(summary: GenerationSummary, launch: GenerationLaunch) -> dict[str, object]:
    """What programs read of the card."""
    languages = launch.generation.quality.languages
    return {
        "pretty_name": f"Samples of {launch.iteration.name}",
        "license": hub_licences(summary.licences),
        **({"language": list(languages)} if languages else {}),
        "task_categories": ["visual-question-answering"],
        "size_categories": [next((name for limit, name in _SIZES if summary.kept < limit), _LARGER)],
        "tags": ["dpe", "synthetic"],
        "configs": [
            {
                "config_name": "default",
                "default": True,
                "data_files": [{"split": "train", "path": f"{SAMPLES}/*.parquet"}],
            },
            *([_config(WARMUP, f"{WARMUP}/*.parquet")] if summary.warmup else []),
            _config("rejected", REJECTED),
        ],
    }


def _config(name: str, path: str) -> dict[str, object]:
    return {"config_name": name, "data_files": [{"split": "train", "path": path}]}


def hub_licences(expressions: Iterable[str]) -> list[str]:
    """SPDX expressions as the Hub names licences, each once; `other`: it has no name for one, `unknown`: nobody has."""
    found = set()
    for expression in expressions:
        names = [n for n in re.split(r"[\s()]+", expression) if n and n not in ("AND", "OR", "WITH")]
        found |= {n.lower() if n.lower() in _HUB_LICENCES else "other" for n in names} or {"unknown"}
    return sorted(found)


def prompts_hash(versions: Mapping[str, str]) -> str:
    """One hash of all prompts."""
    prompts = {name: sha256 for name, sha256 in versions.items() if name.startswith("prompt/")}
    return hashlib.sha256(json.dumps(prompts, sort_keys=True).encode()).hexdigest()


def cell(text: str) -> str:
    """Somebody's words in a table: one line, and nothing in it is Markdown or HTML."""
    return _PUNCTUATION.sub(r"\\\1", " ".join(short(text).split()))
