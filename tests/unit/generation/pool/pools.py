"""Pools for tests: images that can be told apart, as Parquet and as WebDataset shards in a store."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from dpe_jobs.questions import IMAGE_TYPE
from dpe_jobs.store import Store

POOL = "s3://bucket/pool"
COLORS = {"red": (220, 20, 20), "teal": (0, 128, 128), "blue": (30, 60, 220), "yellow": (250, 230, 30)}


def picture(number: int) -> Image.Image:
    """A coloured disc whose place and size say its number."""
    image = Image.new("RGB", (64, 64), (240, 240, 235))
    x, y, r = 12 + number % 7 * 6, 12 + number // 7 % 7 * 6, 5 + number // 49 % 6
    ImageDraw.Draw(image).ellipse((x - r, y - r, x + r, y + r), fill=COLORS[color(number)])
    return image


def color(number: int) -> str:
    return list(COLORS)[number % len(COLORS)]


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def row(number: int, **cells: Any) -> dict[str, Any]:
    return {
        "image": {"bytes": encoded(picture(number)), "path": None},
        "caption": f"disc number{number} painted by hand",
        "licence": "CC0-1.0",
        "url": f"https://example.org/{number}",
        "hue": color(number),
    } | cells


def put_parquet(store: Store, name: str, rows: Sequence[Mapping[str, Any]], group: int = 100) -> None:
    schema = pa.schema([("image", IMAGE_TYPE), *((n, pa.string()) for n in ("caption", "licence", "url", "hue"))])
    buffer = io.BytesIO()
    pq.write_table(
        pa.Table.from_pylist([dict(r) for r in rows], schema=schema), buffer, row_group_size=group, data_page_size=4096
    )
    store.put(f"{POOL}/{name}", buffer.getvalue())


def put_tar(store: Store, name: str, members: Sequence[tuple[str, bytes]]) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member, data in members:
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    store.put(f"{POOL}/{name}", buffer.getvalue())


def sample(number: int) -> list[tuple[str, bytes]]:
    """The members of one key of a WebDataset shard."""
    meta = {"license": "CC-BY-4.0", "url": f"https://example.org/{number}", "hue": color(number)}
    return [
        (f"{number:06d}.jpg", encoded(picture(number), "JPEG")),
        (f"{number:06d}.txt", f"disc number{number} from a tar".encode()),
        (f"{number:06d}.json", json.dumps(meta).encode()),
    ]
