"""Memory of the cluster's processes, by part."""

from collections import Counter
from pathlib import Path

from dev.cluster.config import Cluster
from dev.cluster.lifecycle import process_names
from dev.cluster.processes import Processes


def _processes() -> dict[int, tuple[int, str, int]]:
    """Process id -> parent, name, proportional set size in KiB (shared pages are counted once over all)."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            stat = (folder / "stat").read_text()
            lines = (folder / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue  # ended meanwhile, or a kernel thread
        size = sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        name = stat[stat.index("(") + 1 : stat.rindex(")")]
        found[int(folder.name)] = (int(stat.rsplit(")", 1)[1].split()[1]), name, size)
    return found


def by_part(cluster: Cluster) -> dict[str, Counter[str]]:
    """Part of the cluster -> program -> proportional set size in KiB; a node's programs include its pods'."""
    everything = _processes()
    children: dict[int, list[int]] = {}
    for pid, (parent, _, _) in everything.items():
        children.setdefault(parent, []).append(pid)
    parts = {}
    for part in process_names(cluster):
        sizes: Counter[str] = Counter()
        waiting = [pid for pid in [Processes(cluster).alive(part)] if pid]
        while waiting:
            pid = waiting.pop()
            if pid in everything:
                _, name, size = everything[pid]
                sizes[name] += size
            waiting += children.get(pid, [])
        parts[part] = sizes
    return parts


def report(cluster: Cluster) -> None:
    """Print a line per part and program, and the total."""
    total = 0
    for part, sizes in by_part(cluster).items():
        for name, size in sizes.most_common():
            print(f"{part:12} {name:20} {size >> 10:6} MiB")
            total += size
    print(f"{'total':33} {total >> 10:6} MiB")
