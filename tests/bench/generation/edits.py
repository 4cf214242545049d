"""What an edited candidate costs before any model is asked, how many originals are refused, and what the reader finds.

    python tests/bench/generation/edits.py --draws 200

Originals are drawn shapes, or parts of the two photographs of tests/pictures.
"""

import argparse
import random
import sys
import time
from collections import Counter

from PIL import Image
from tests import pictures

from dpe_api.generation_spec import SourceKind
from dpe_jobs.generation import writer
from dpe_jobs.generation.edit import Edit, make
from dpe_jobs.generation.edit.cropping import Crop
from dpe_jobs.generation.edit.lettering import OverlayText
from dpe_jobs.generation.edit.quarters import Blur, Occlude
from dpe_jobs.generation.edit.recolour import Recolour
from dpe_jobs.generation.edit.several import Compose, Duplicate
from dpe_jobs.generation.edit.turning import Flip, Rotate
from dpe_jobs.generation.images import NoImage, Origin, Picture
from dpe_jobs.generation.planner import choose_knobs
from dpe_jobs.generation.render import TRUTH
from dpe_jobs.generation.render.shapes import Shapes
from dpe_jobs.graders import grade

EDITS = (Recolour, Flip, Rotate, Crop, Occlude, Blur, Compose, Duplicate, OverlayText)
SHAPES = Shapes()


def photograph(photographs: list[Image.Image], rng: random.Random) -> Picture:
    """A square part of 120 to 320 pixels a side."""
    whole, side = rng.choice(photographs), rng.randint(120, 320)
    x, y = rng.randint(0, whole.width - side), rng.randint(0, whole.height - side)
    return Picture(whole.crop((x, y, x + side, y + side)), Origin(SourceKind.POOL, "pool:photographs", "", "BSD"))


def one_shape(facts: dict[str, str], rng: random.Random) -> Picture:
    """A drawn shape with these facts."""
    drawn = SHAPES.draw({name: rng.choice(values) for name, values in SHAPES.vocabulary.items()} | facts, rng)
    return Picture(drawn.image, Origin(SourceKind.RENDER, "render:shapes", "", "Apache-2.0"), drawn.facts)


def measure(edit: Edit, category: str, draws: int, photographs: list[Image.Image]) -> str:
    """A line of the table."""
    outcomes: Counter[str] = Counter()
    editing = reading = 0.0
    for number in range(draws):
        rng = random.Random(number)
        knobs = choose_knobs(edit.knobs(category), number, 1)
        wanted = edit.originals(category, knobs)
        originals = [one_shape(dict(f), rng) if f else photograph(photographs, rng) for f in wanted]
        began = time.perf_counter()
        try:
            picture = make(edit, category, originals, knobs, rng)
        except NoImage:
            outcomes["refused"] += 1
            continue
        finally:
            editing += time.perf_counter() - began
        asked = writer.write(edit, rng.choice(edit.forms(category)), picture.facts, knobs.get(TRUTH, "yes"), rng)
        began = time.perf_counter()
        try:
            right = grade(edit.answer(picture.image, asked.question), asked.answer, asked.answer_type)
            outcomes["same" if right else "other"] += 1
        except ValueError:
            outcomes["unreadable"] += 1
        reading += time.perf_counter() - began
    read = max(1, draws - outcomes["refused"])
    cells = [edit.name, category, f"{editing / draws * 1000:.1f}", f"{reading / read * 1000:.1f}"]
    cells += [str(outcomes[name]) for name in ("same", "other", "unreadable", "refused")]
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Exit code: 1 when a reader found another answer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200)
    draws = parser.parse_args().draws
    photographs = list(pictures.photographs().values())
    print("| program | category | edit, ms | read, ms | same answer | another | none | original refused |")
    print("|---|---|---|---|---|---|---|---|")
    lines = [measure(kind(), c, draws, photographs) for kind in EDITS for c in kind().categories()]
    print("\n".join(lines))
    return int(any(line.split(" | ")[5] != "0" for line in lines))


if __name__ == "__main__":
    sys.exit(main())
