"""How often a changed copy of a reserved picture is known again, and how often another picture is taken for one.

    python tests/bench/generation/near_duplicates.py [PICTURES CHANGED]

Half of each population is reserved, all together; copies of some are changed and looked up, and so is the other half.
Populations: easy-vqa, digits and tiles of photographs as packages bring them, and what our programs draw. A match with
another picture than the copy's own counts as known: the candidate is refused all the same.
"""

import importlib
import io
import random
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

import easy_vqa
import matplotlib
from PIL import Image, ImageDraw, ImageEnhance
from tests import pictures

from dpe_jobs.generation.planner import choose_knobs
from dpe_jobs.generation.quality.near import NearPictures
from dpe_jobs.generation.render import Generator

PICTURES = 200  # of each population
CHANGED = 25  # of them
EACH = 8  # ways to change it, of those of a row
TILE = 72  # pixels
Change = Callable[[Image.Image, random.Random], Image.Image]


def programs() -> list[Generator]:
    """All of pyproject.toml."""
    page = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    entries = tomllib.loads(page)["project"]["entry-points"]["dpe.generators"].values()
    return [getattr(importlib.import_module(e.split(":")[0]), e.split(":")[1])() for e in entries]


def drawn(program: Generator, count: int) -> list[Image.Image]:
    """Pictures over all categories and knobs."""
    pictures = []
    for number in range(count):
        category = program.categories()[number % len(program.categories())]
        knobs = choose_knobs(program.knobs(category), number, 0)
        pictures.append(program.draw(knobs, random.Random(f"{program.name} {number}")).image.convert("RGB"))
    return pictures


def photographs() -> list[Image.Image]:
    """Tiles that do not overlap."""
    whole = list(pictures.photographs().values())
    whole.append(Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg").convert("RGB"))
    return [
        picture.crop((x, y, x + TILE, y + TILE))
        for picture in whole
        for y in range(0, picture.height - TILE + 1, TILE)
        for x in range(0, picture.width - TILE + 1, TILE)
    ]


def populations(count: int) -> dict[str, list[Image.Image]]:
    """Pictures by where they are from, in an order drawn by lot."""
    folder = Path(easy_vqa.__file__).parent / "data" / "train" / "images"
    digits = [Image.fromarray(pixels) for pixels in pictures.digits()[0][:count]]
    found = {
        "easy-vqa": [Image.open(folder / f"{n}.png").convert("RGB") for n in range(count)],
        "digits": [d.resize((64, 64), Image.Resampling.BICUBIC).convert("RGB") for d in digits],
        "photographs": photographs()[:count],
        **{p.name: drawn(p, count) for p in programs() if p.name != "shapes"},
    }
    for name, images in found.items():
        random.Random(name).shuffle(images)
    return found


def saved(image: Image.Image, form: str, quality: int) -> Image.Image:
    """As it comes back from a file."""
    out = io.BytesIO()
    image.save(out, form, quality=quality)
    return Image.open(out).convert("RGB")


def scaled(image: Image.Image, factor: float, resampling: Image.Resampling = Image.Resampling.LANCZOS) -> Image.Image:
    """Smaller or larger."""
    size = max(8, round(image.width * factor)), max(8, round(image.height * factor))
    return image.resize(size, resampling)


def cropped(image: Image.Image, part: float, rng: random.Random) -> Image.Image:
    """Without this part of each side, taken from either end."""
    left, top = rng.uniform(0, part), rng.uniform(0, part)
    width, height = image.size
    return image.crop(
        (
            round(left * width),
            round(top * height),
            round((1 - part + left) * width),
            round((1 - part + top) * height),
        )
    )


def labelled(image: Image.Image, part: float, rng: random.Random) -> Image.Image:
    """With a label over this part of it, in a corner."""
    marked, (width, height) = image.copy(), image.size
    across, down = round(width * (part * 2.5) ** 0.5), round(height * (part / 2.5) ** 0.5)
    x, y = rng.choice([2, width - across - 2]), rng.choice([2, height - down - 2])
    pen = ImageDraw.Draw(marked)
    pen.rectangle((x, y, x + across, y + down), fill=rng.choice(["white", "black", "#c81e1e"]))
    pen.text((x + 1, y + 1), "sample.org", fill="#808080")
    return marked


def resizing(factor: float, by: Image.Resampling) -> Change:
    """A change to this size."""
    return lambda i, _: scaled(i, factor, by)


def turning(way: Image.Transpose) -> Change:
    """A turn or a mirror image."""
    return lambda i, _: i.transpose(way)


def saving(form: str, quality: int) -> Change:
    """A file of this form, read again."""
    return lambda i, _: saved(i, form, quality)


FLIP, TURN = Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_90
RESIZED = tuple(resizing(factor, by) for factor in (0.5, 0.75, 1.5, 2) for by in Image.Resampling)
TURNED = tuple(turning(way) for way in Image.Transpose)
SAVED = tuple(saving(form, 50) for form in ("JPEG", "WEBP"))


def pairs(first: Sequence[Change], second: Sequence[Change]) -> tuple[Change, ...]:
    """Each of the first, then each of the second."""
    return tuple(lambda i, r, f=f, s=s: s(f(i, r), r) for f in first for s in second)


CHANGES: dict[str, tuple[Change, ...]] = {
    "resized": RESIZED,
    "halved without a filter": (resizing(0.5, Image.Resampling.NEAREST),),
    "JPEG 50-90, WebP 50": (
        saving("JPEG", 90),
        saving("JPEG", 50),
        saving("WEBP", 50),
    ),
    "resized, JPEG or WebP 50": pairs(RESIZED, SAVED),
    "JPEG or WebP 50, resized": pairs(SAVED, RESIZED),
    "turned, resized": pairs(TURNED, RESIZED),
    "turned, JPEG or WebP 50": pairs(TURNED, SAVED),
    "JPEG 25": (saving("JPEG", 25),),
    "flipped, turned": TURNED,
    "flipped, 0.7 x, JPEG 60": (lambda i, _: saved(scaled(i.transpose(FLIP), 0.7), "JPEG", 60),),
    "darker, flatter": (
        lambda i, _: ImageEnhance.Brightness(i).enhance(0.8),
        lambda i, _: ImageEnhance.Contrast(i).enhance(0.8),
    ),
    "brighter by 20%": (lambda i, _: ImageEnhance.Brightness(i).enhance(1.2),),
    "grey": (lambda i, _: i.convert("L").convert("RGB"),),
    "label on 2%": (lambda i, r: labelled(i, 0.02, r),),
    "label on 5%": (lambda i, r: labelled(i, 0.05, r),),
    "cropped by 3%": (lambda i, r: cropped(i, 0.03, r),),
    "cropped by 5%": (lambda i, r: cropped(i, 0.05, r),),
    "cropped by 10%": (lambda i, r: cropped(i, 0.10, r),),
    "turned, cropped by 5%, JPEG 70": (lambda i, r: saved(cropped(i.transpose(TURN), 0.05, r), "JPEG", 70),),
}


def main(count: int, changed: int) -> None:
    """Print the table."""
    every = populations(count)
    halves = {
        name: (pictures[: len(pictures) // 2], pictures[len(pictures) // 2 :]) for name, pictures in every.items()
    }
    with NearPictures() as index:
        for name, (reserved, _) in halves.items():
            for number, picture in enumerate(reserved):
                index.add(f"{name} {number}", picture)
        print(f"{len(index)} pictures are reserved")
        begin, looked_up = time.process_time(), 0
        taken = {}
        for name, (_, others) in halves.items():
            taken[name] = sum(index.find(picture) is not None for picture in others) / len(others)
            looked_up += len(others)
        print(
            f"{1000 * (time.process_time() - begin) / looked_up:.1f} ms of CPU for one that is not there, thumbnail too"
        )
        print("| |", " | ".join(halves), "|")
        print("|---" * (len(halves) + 1) + "|")
        print("| **another picture, refused** |", " | ".join(f"{share:.3f}" for share in taken.values()), "|")
        for title, changes in CHANGES.items():
            shares = []
            for name, (reserved, _) in halves.items():
                rng = random.Random(f"{title} {name}")
                few = min(len(changes), EACH)
                copies = [change(picture, rng) for picture in reserved[:changed] for change in rng.sample(changes, few)]
                shares.append(sum(index.find(copy) is not None for copy in copies) / len(copies))
            print(f"| {title} |", " | ".join(f"{share:.2f}" for share in shares), "|", flush=True)


if __name__ == "__main__":
    main(*([int(told) for told in sys.argv[1:]] or [PICTURES, CHANGED]))
