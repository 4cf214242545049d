"""A town: which cell holds what. Directions are those of the compass, wherever north is in the picture."""

import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

Cell = tuple[int, int]
"""Column and row in the picture, from the left upper corner."""

SIZES = {"small": (5, 5), "medium": (6, 7), "large": (8, 9)}
"""Cells a side, at least and at most."""
WATER = {"none": 0.0, "some": 0.14, "much": 0.26}
"""Share of the cells."""
PLACES = (
    *("Library", "School", "Museum", "Station", "Bakery", "Hospital", "Theatre", "Market", "Bank", "Pharmacy"),
    *("Hotel", "Cinema", "Church", "Stadium", "Castle", "Garage", "Tower", "Court"),
)
NORTHS: Mapping[str, Cell] = {"up": (0, -1), "right": (1, 0), "down": (0, 1), "left": (-1, 0)}
METRES = (50, 100, 150, 200, 250, 500)
COMPASS = ("north", "northeast", "east", "southeast", "south", "southwest", "west", "northwest")


@dataclass(frozen=True, slots=True)
class Town:
    """What a map shows."""

    columns: int
    rows: int
    water: frozenset[Cell]
    places: Mapping[str, Cell]
    north: Cell
    """The step in the picture that leads north."""
    metres: int
    """From the middle of a cell to that of the next one."""

    def step(self, direction: str) -> Cell:
        """The step in the picture that leads in a direction of the compass."""
        north, east = self.north, (-self.north[1], self.north[0])
        dx = dy = 0
        for name, way, sign in (("north", north, 1), ("south", north, -1), ("east", east, 1), ("west", east, -1)):
            if name in direction:
                dx, dy = dx + sign * way[0], dy + sign * way[1]
        return dx, dy

    def holds(self, cell: Cell) -> bool:
        """Whether the cell is on the map."""
        return 0 <= cell[0] < self.columns and 0 <= cell[1] < self.rows

    def steps(self, start: Cell) -> dict[Cell, int]:
        """Least steps over land from a cell to every one that can be reached."""
        found, ahead = {start: 0}, deque([start])
        while ahead:
            x, y = ahead.popleft()
            for dx, dy in NORTHS.values():
                cell = x + dx, y + dy
                if self.holds(cell) and cell not in self.water and cell not in found:
                    found[cell] = found[x, y] + 1
                    ahead.append(cell)
        return found


def build(size: str, water: str, north: str, rng: random.Random) -> Town:
    """Any town of that size."""
    columns, rows = rng.randint(*SIZES[size]), rng.randint(*SIZES[size])
    cells = [(x, y) for x in range(columns) for y in range(rows)]
    wet = _lakes(cells, round(WATER[water] * len(cells)), rng)
    dry = [cell for cell in cells if cell not in wet]
    count = min(len(PLACES), rng.randint(max(4, columns), columns + rows))
    names, homes = rng.sample(PLACES, count), rng.sample(dry, count)
    turned = rng.choice(("right", "down", "left"))
    return Town(
        columns=columns,
        rows=rows,
        water=frozenset(wet),
        places=dict(zip(names, homes, strict=True)),
        north=NORTHS["up" if north == "up" else turned],
        metres=rng.choice(METRES),
    )


def _lakes(cells: list[Cell], count: int, rng: random.Random) -> set[Cell]:
    """Water that lies together: each new cell beside an old one more often than not."""
    wet: set[Cell] = set()
    while len(wet) < count:
        beside = [c for c in cells if c not in wet and any((c[0] + dx, c[1] + dy) in wet for dx, dy in NORTHS.values())]
        wet.add(rng.choice(beside if beside and rng.random() < 0.7 else cells))
    return wet
