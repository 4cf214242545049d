"""Peak memory of a command and of everything that runs on the machine meanwhile, by part.

    python tests/bench/memory.py -- make demo

Counts proportional set size (PSS), so that pages shared between processes count once. Sampled every two seconds: a
peak shorter than that can be missed.
"""

import argparse
import subprocess
import sys
import time
from collections import defaultdict

import psutil

INTERVAL_S = 2.0

# first match wins; looked for in the command line
PARTS = (
    ("vLLM", ("vllm", "VLLM::")),
    ("training ranks", ("dpe_jobs.training.rank",)),
    ("training parents", ("dpe_jobs training", "torch.distributed.run")),
    ("other stages", ("dpe_jobs",)),
    ("operator", ("dpe_operator",)),
    ("object store", ("minio",)),
    ("kube-apiserver", ("kube-apiserver",)),
    ("etcd", ("/etcd",)),
    ("controller-manager and scheduler", ("kube-controller-manager", "kube-scheduler")),
    ("nodes (kubelet, kube-proxy, containerd)", ("kubelet", "kube-proxy", "containerd")),
    ("CoreDNS", ("coredns",)),
)


def part_of(command_line: str) -> str | None:
    """The part that a process belongs to; None for what is not ours."""
    return next((name for name, marks in PARTS if any(m in command_line for m in marks)), None)


def sample() -> tuple[dict[str, int], int]:
    """PSS in bytes by part, and the largest single training rank's."""
    parts: dict[str, int] = defaultdict(int)
    largest_rank = 0
    for process in psutil.process_iter():
        try:
            part = part_of(" ".join(process.cmdline()) or process.name())
            if part is None:
                continue
            pss = process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it ended while we looked
        parts[part] += pss
        if part == "training ranks":
            largest_rank = max(largest_rank, pss)
    return dict(parts), largest_rank


def main() -> int:
    """Exit code of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="+")
    child = subprocess.Popen(parser.parse_args().command)
    peaks: dict[str, int] = defaultdict(int)
    peak, largest_rank = 0, 0
    while child.poll() is None:
        parts, rank = sample()
        peak, largest_rank = max(peak, sum(parts.values())), max(largest_rank, rank)
        for name, size in parts.items():
            peaks[name] = max(peaks[name], size)
        time.sleep(INTERVAL_S)
    print(f"\n{'part':<42} peak PSS, MiB")
    for name, size in sorted(peaks.items(), key=lambda item: -item[1]):
        print(f"{name:<42} {size >> 20:>8}")
    print(f"{'largest single training rank':<42} {largest_rank >> 20:>8}")
    print(f"{'all together, at the worst moment':<42} {peak >> 20:>8}")
    return child.returncode


if __name__ == "__main__":
    sys.exit(main())
