"""What endpoints are told, one file each: the system's part, a line of three dashes, the user's part with $names.

A prompt decides answers as code does: its hash is in the ledger's keys and in the manifest.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from string import Template

NAMES = (
    "answer",
    "categorise",
    "error",
    "judge",
    "merge",
    "observe",
    "plan",
    "safety",
    "select",
    "verify",
    "write",
)
_DIVIDER = "\n---\n"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt."""

    system: str
    user: Template
    sha256: str

    def fill(self, **values: str) -> str:
        """The user's part. Values are put in as they are: a `$name` inside one stays text. KeyError: one is missing."""
        return self.user.substitute(values)


@cache
def prompt(name: str) -> Prompt:
    """The prompt of a file, without its extension."""
    data = files(__package__).joinpath(f"{name}.md").read_bytes()
    system, _, user = data.decode().partition(_DIVIDER)
    return Prompt(system.strip(), Template(user.strip()), hashlib.sha256(data).hexdigest())


def versions() -> dict[str, str]:
    """Hash of every prompt, as a manifest's `versions` has them: `prompt/NAME` to sha256."""
    return {f"prompt/{name}": prompt(name).sha256 for name in NAMES}
