"""Debian packages: only those whose files are missing, so that nothing is done on a machine that has them."""

import os
import shutil
import signal
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from dev.setup.steps import SetupError, call, say, timed

_COMMANDS = {
    "containerd": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "nsenter": "util-linux",
    "busybox": "busybox-static",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "g++": "g++",
    "git": "git",
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
    "prometheus": "prometheus",
    "promtool": "prometheus",
}
"""Command -> package that has it. g++ compiles DeepSpeed's shared-memory op."""
_FILES = {"/usr/lib/cni/bridge": "containernetworking-plugins"}
_FOR_PYTHON = {"g++", "python3-dev", "python3-venv"}
"""What the Python environment alone needs."""

_SYSTEMD = Path("/run/systemd/system")
_POLICY = Path("/usr/sbin/policy-rc.d")
"""What Debian's packages ask before they start a service."""
_START_NOTHING = "#!/bin/sh\n# while the setup of DPE installs packages\nexit 101\n"


def missing(*, cluster: bool) -> list[str]:
    """Packages that must be installed, for the cluster too or for Python alone."""
    found = {package for command, package in _COMMANDS.items() if shutil.which(command) is None}
    found |= {package for path, package in _FILES.items() if not Path(path).exists()}
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        found.add("python3-dev")
    try:
        import ensurepip  # noqa: F401 - Debian splits it off
    except ImportError:
        found.add("python3-venv")
    return sorted(found if cluster else found & _FOR_PYTHON)


def _enabled() -> set[str]:
    """Units that systemd starts at boot; none where it does not run."""
    if not _SYSTEMD.is_dir():
        return set()
    command = ["systemctl", "list-unit-files", "--state=enabled", "--no-legend", "--no-pager"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {line.split()[0] for line in listed.splitlines() if line.strip()}


@contextmanager
def _in_one_piece() -> Iterator[None]:
    """A signal to end waits until this is over: a killed apt-get leaves packages half configured."""
    received: list[int] = []

    def later(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    ends = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    for number in ends:
        signal.signal(number, later)
    try:
        yield
    finally:
        for number in ends:
            signal.signal(number, signal.SIG_DFL)
        if received:
            raise SystemExit(128 + received[0])


@contextmanager
def _without_services() -> Iterator[None]:
    """Services of packages that are installed meanwhile are not started, neither now nor at the next boot."""
    before = _enabled()
    ours = not _POLICY.exists()  # one that somebody made stays
    try:
        if ours:
            _POLICY.write_text(_START_NOTHING)
            _POLICY.chmod(0o755)
        yield
    finally:
        if ours:
            _POLICY.unlink(missing_ok=True)
        new = sorted(_enabled() - before)
        if new:
            call(["systemctl", "disable", *new], "apt")


def _end_killed_installation() -> None:
    """With what a setup that was killed left there, no service of any package would start at its installation."""
    if os.geteuid() == 0 and _POLICY.exists() and _POLICY.read_text() == _START_NOTHING:
        _POLICY.unlink()


def ensure(*, cluster: bool) -> None:
    """Install what is missing; SetupError where that cannot be done."""
    _end_killed_installation()
    wanted = missing(cluster=cluster)
    if not wanted:
        return
    if shutil.which("apt-get") is None:
        raise SetupError(f"this machine has no apt-get: install by hand what these Debian packages hold: {wanted}")
    if os.geteuid() != 0:
        raise SetupError(f"missing Debian packages; run as root: apt-get install {' '.join(wanted)}")
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "--no-install-recommends", *wanted]
    with timed("Debian packages"), _in_one_piece(), _without_services():
        say("installing " + " ".join(wanted))
        known = subprocess.run(["apt-get", "install", "--simulate", *wanted], capture_output=True, check=False)
        if known.returncode:
            call(["apt-get", "update"], "apt", env=environment)
        try:
            call(install, "apt", env=environment)
        except SetupError:  # lists that are too old name files that are gone
            call(["apt-get", "update"], "apt", env=environment)
            call(install, "apt", env=environment)
    still = missing(cluster=cluster)
    if still:
        raise SetupError(f"apt-get installed without error, but this is still missing: {' '.join(still)}")
