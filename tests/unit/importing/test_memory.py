"""Memory does not grow with the source: an import of many times the size peaks at the same."""

import base64
import io
import json
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

IMAGES = 24
SIDES = {"large": 160, "small": 80}  # pixels: large ones grow a file quickly, small ones fill Parquet's pages
# the peak of memory that is the process's own: files that are mapped do not count, the kernel drops them at will
RUN = """
import json, sys, threading, time
from dpe_jobs.importing import cli

peak, done = 0, threading.Event()
def watch():
    global peak
    while not done.is_set():
        status = dict(l.split(":", 1) for l in open("/proc/self/status") if ":" in l)
        peak = max(peak, int(status["RssAnon"].split()[0]) * 1024)
        time.sleep(0.005)
thread = threading.Thread(target=watch); thread.start()
code = cli.main(sys.argv[1:])
done.set(); thread.join()
print(json.dumps({"code": code, "peak": peak}))
"""


def noise(side: int) -> list[bytes]:
    """PNG files of about 3 * side * side bytes that do not compress."""
    made = []
    for number in range(IMAGES):
        file = io.BytesIO()
        drawn = Image.frombytes("RGB", (side, side), random.Random(number).randbytes(side * side * 3))
        drawn.save(file, "PNG", compress_level=0)
        made.append(file.getvalue())
    return made


def row(number: int, images: list[bytes]) -> dict[str, object]:
    # the first bytes after the end of a PNG are nobody's: no two images are the same
    image = images[number % IMAGES] + number.to_bytes(8, "big")
    return {"index": str(number), "image": image, "question": "what is it?", "answer": "noise", "category": "noise"}


def write_tsv(path: Path, count: int, images: list[bytes]) -> None:
    with path.open("w") as handle:
        handle.write("index\timage\tquestion\tanswer\tcategory\n")
        for number in range(count):
            cells = row(number, images)
            cells["image"] = base64.b64encode(cells["image"]).decode()
            handle.write("\t".join(cells.values()) + "\n")


def write_parquet(path: Path, count: int, images: list[bytes]) -> None:
    """All of it in one row group, as a careless program writes it; pyarrow's pages hold up to 1024 rows."""
    rows = [row(number, images) for number in range(count)]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=count, use_dictionary=False)


def write_arrow(path: Path, count: int, images: list[bytes]) -> None:
    table = pa.Table.from_pylist([row(number, images) for number in range(count)])
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table.combine_chunks())


def write_jsonl(path: Path, count: int, images: list[bytes]) -> None:
    with path.open("w") as handle:
        for number in range(count):
            cells = row(number, images)
            cells["image"] = base64.b64encode(cells["image"]).decode()
            handle.write(json.dumps(cells) + "\n")


def write_json(path: Path, count: int, images: list[bytes]) -> None:
    write_jsonl(path, count, images)
    path.write_text("[" + ",".join(path.read_text().splitlines()) + "]")


def peak(source: Path, to: Path) -> int:
    """Peak bytes of an import in a process of its own."""
    flags = [str(source), "--to", str(to), "--part-mib", "8", "--column", "id=index"]
    done = subprocess.run([sys.executable, "-c", RUN, *flags], capture_output=True, text=True, check=True)
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["code"] == 0, done.stderr
    return int(said["peak"])


# `slack`, in MiB: how far apart the peaks may be. Those of a TSV lie within 3 MiB whatever its size; of a Parquet file
# pyarrow's allocator keeps some pages (57 MiB more at 32 times the size, 53 at 16 times)
@pytest.mark.parametrize(
    ("write", "side", "few", "rows", "slack"),
    [
        (write_tsv, "large", 250, 1000, 16),
        (write_arrow, "large", 250, 1000, 16),
        (write_json, "large", 250, 1000, 16),
        (write_jsonl, "large", 250, 1000, 16),
        (write_parquet, "small", 1500, 12_000, 64),
    ],
)
def test_a_source_many_times_the_size_needs_no_more_memory(write, side, few, rows, slack, tmp_path):
    images, peaks = noise(SIDES[side]), []
    for count in (few, rows):  # the few fill every buffer once
        source = tmp_path / f"{count}"
        write(source, count, images)
        peaks.append(peak(source, tmp_path / f"out-{count}"))
    grown = (tmp_path / f"{rows}").stat().st_size - (tmp_path / f"{few}").stat().st_size
    assert grown > 3 * slack << 20
    assert peaks[1] - peaks[0] < slack << 20, f"{peaks} bytes for {grown} bytes more"
