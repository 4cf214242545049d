"""What the installed programs supply, as Markdown: `python -m dpe_jobs.generation.render [PROGRAM ...]`."""

import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points

from dpe_api.generation_spec import Source, SourceKind
from dpe_jobs.generation.render import GROUP, Generator, SceneProgram, load_programs


def describe(program: Generator) -> Iterator[str]:
    """Lines of a table: each knob with its values, and the facets that are none."""
    yield "| category | knob | values |"
    yield "|---|---|---|"
    for category in program.categories():
        knobs = program.knobs(category)
        facets = program.facets(category) if isinstance(program, SceneProgram) else knobs
        for name, values in facets.items():
            said = name if name in knobs else f"{name} (facet only)"
            yield f"| {category} | {said} | {', '.join(values)} |"


def main(names: Sequence[str]) -> None:
    """Print programs by name; all that are installed without one."""
    wanted = names or sorted(entry.name for entry in entry_points(group=GROUP))
    for program in load_programs([Source(kind=SourceKind.RENDER, program=name) for name in wanted]):
        print(f"### {program.name}\n", *describe(program), "", sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
