"""How fast a large TSV is imported, and in how much memory.

    python tests/bench/importing/tsv.py --mib 1024

Writes a TSV of JPEG photographs' size (512x384 pixels, about 80 KB each, no two alike), imports it into a folder in a
process of its own, and prints MB/s of the TSV and the peak memory of that process.
"""

import argparse
import base64
import io
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageFilter

SIZE = (512, 384)  # pixels
IMAGES = 64
INTERVAL_S = 0.05


def images() -> list[bytes]:
    """JPEG files of blurred noise: they decode as slowly as photographs."""
    made = []
    for number in range(IMAGES):
        noise = Image.frombytes("RGB", SIZE, random.Random(number).randbytes(SIZE[0] * SIZE[1] * 3))
        out = io.BytesIO()
        noise.filter(ImageFilter.GaussianBlur(0.8)).save(out, "JPEG", quality=85)
        made.append(out.getvalue())
    return made


def write(path: Path, size: int) -> int:
    """Write rows until the file has `size` bytes; returns how many."""
    pictures, rows = images(), 0
    with path.open("w") as handle:
        handle.write("index\timage\tquestion\tA\tB\tC\tD\tanswer\tcategory\n")
        while handle.tell() < size:
            # what follows the end of a JPEG is nobody's: no two images are the same
            data = base64.b64encode(pictures[rows % IMAGES] + rows.to_bytes(8, "big")).decode()
            cells = [
                str(rows),
                data,
                f"which is {rows}?",
                "red",
                "green",
                "blue",
                "gray",
                "ABCD"[rows % 4],
                "hue",
            ]
            handle.write("\t".join(cells) + "\n")
            rows += 1
    return rows


def _memory(pid: int) -> Iterator[tuple[str, int]]:
    """Peak of all, and what is the process's own now, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("VmHWM", "RssAnon"):
            yield name, int(value.split()[0]) * 1024


def run(source: Path, to: Path) -> tuple[float, dict[str, int]]:
    """Seconds, and peaks in bytes."""
    command = [sys.executable, "-m", "dpe_jobs", "import", str(source), "--to", str(to)]
    began, peaks = time.perf_counter(), dict[str, int]()
    child = subprocess.Popen(command, env=os.environ)
    while child.poll() is None:
        try:
            for name, value in _memory(child.pid):
                peaks[name] = max(peaks.get(name, 0), value)
        except OSError:
            break  # it ended while we looked
        time.sleep(INTERVAL_S)
    if child.wait() != 0:
        raise SystemExit(child.returncode)
    return time.perf_counter() - began, peaks


def main() -> None:
    """Print one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024, help="size of the TSV (default: %(default)s)")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "large.tsv"
        rows = write(source, parser.parse_args().mib << 20)
        size = source.stat().st_size
        seconds, peaks = run(source, Path(folder) / "out")
    print(f"TSV: {size / 1e6:.0f} MB, {rows} rows")
    cpu_s = os.times().children_user + os.times().children_system
    print(f"import: {seconds:.1f} s, {size / 1e6 / seconds:.0f} MB/s, {rows / seconds:.0f} rows/s")
    print(f"processor time: {cpu_s:.1f} s, {size / 1e6 / cpu_s:.0f} MB per second of one core")
    print(f"peak memory: {peaks['VmHWM'] / 1e6:.0f} MB, of which the process's own {peaks['RssAnon'] / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
