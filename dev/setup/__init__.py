"""Everything that the project needs on a Debian machine: `python3 -m dev.setup`. Standard library only."""
