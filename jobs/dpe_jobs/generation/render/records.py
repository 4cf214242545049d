"""Real tables: what the package vega_datasets holds without the network, summed up to the size of a chart.

All are facts from public sources: US agencies (EIA, BLS, NOAA), Fisher's irises, Immer's barley, Playfair's wheat,
StatLib's cars, closing prices. The package says where each comes from.
"""

import csv
import functools
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from dpe_jobs.generation.render.tabular import Table

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _read(name: str) -> list[dict[str, Any]]:
    from vega_datasets import local_data  # imports pandas: a process that draws no table need not

    path = Path(getattr(local_data, name).filepath)
    with path.open(encoding="utf-8") as file:
        return json.load(file) if path.suffix == ".json" else list(csv.DictReader(file))


def _grid(
    cells: Mapping[tuple[str, str], Iterable[float]],
    rows: Sequence[str],
    columns: Sequence[str],
    decimals: int,
    summary: Callable[[Iterable[float]], float] = fmean,
) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(round(summary(cells[row, column]), decimals) for column in columns) for row in rows)


def _cells(rows: Iterable[tuple[str, str, float]]) -> dict[tuple[str, str], list[float]]:
    cells: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row, column, value in rows:
        cells[row, column].append(value)
    return cells


def _electricity() -> Table:
    cells = _cells((r["year"][:4], r["source"], float(r["net_generation"])) for r in _read("iowa_electricity"))
    rows, columns = sorted({row for row, _ in cells}), ("Fossil Fuels", "Nuclear Energy", "Renewables")
    return Table(
        **_words(
            "electricity", "Electricity generated in Iowa", "output of electricity from {column}", "in {row}", "GWh"
        ),
        index="year",
        kind="source",
        rows=tuple(rows),
        columns=columns,
        values=_grid(cells, rows, columns, 0),
        parts=("columns",),
        whole="the output of electricity",
    )


def _words(name: str, title: str, series: str, at: str, unit: str) -> dict[str, Any]:
    return {"name": name, "title": title, "series": series, "at": at, "unit": unit}


_SECTORS = {
    "construction": "Construction",
    "manufacturing": "Manufacturing",
    "retail_trade": "Retail trade",
    "information": "Information",
    "financial_activities": "Finance",
    "education_and_health_services": "Education and health",
    "leisure_and_hospitality": "Leisure",
    "government": "Government",
}


def _employment() -> Table:
    cells = _cells(
        (r["month"][:4], label, float(r[column])) for r in _read("us_employment") for column, label in _SECTORS.items()
    )
    rows, columns = sorted({row for row, _ in cells}), tuple(_SECTORS.values())
    return Table(
        **_words("employment", "Employees in the USA", "employment in {column}", "in {row}", "thousand people"),
        index="year",
        kind="sector",
        rows=tuple(rows),
        columns=columns,
        values=_grid(cells, rows, columns, 0),
        parts=("columns",),
        whole="the employment shown",
    )


def _barley(by_variety: bool) -> Table:
    found = _read("barley")
    if by_variety:
        cells = _cells((r["variety"], r["site"], r["yield"]) for r in found)
        words = _words(
            "barley varieties", "Barley yields by variety", "yield at {column}", "of {row}", "bushels per acre"
        )
        index, kind = "variety", "site"
    else:
        cells = _cells((r["site"], str(r["year"]), r["yield"]) for r in found)
        words = _words("barley sites", "Barley yields by site", "yield in {column}", "at {row}", "bushels per acre")
        index, kind = "site", "year"
    rows, columns = sorted({row for row, _ in cells}), sorted({column for _, column in cells})
    return Table(
        **words,
        index=index,
        kind=kind,
        rows=tuple(rows),
        columns=tuple(columns),
        values=_grid(cells, rows, columns, 1),
        decimals=1,
        ordered=False,
    )


def _cars(count: bool) -> Table:
    found = [r for r in _read("cars") if r["Miles_per_Gallon"] is not None]
    cells = _cells((r["Year"][:4], r["Origin"], r["Miles_per_Gallon"]) for r in found)
    rows, columns = sorted({row for row, _ in cells}), ("USA", "Europe", "Japan")
    if count:
        words = _words("car models", "Car models tested", "number of car models from {column}", "in {row}", "models")
        values = _grid(cells, rows, columns, 0, lambda numbers: float(len(list(numbers))))
    else:
        words = _words(
            "fuel economy", "Fuel economy of cars", "mean fuel economy of cars from {column}", "in {row}", "mpg"
        )
        values = _grid(cells, rows, columns, 1)
    return Table(
        **words,
        index="year",
        kind="origin",
        rows=tuple(rows),
        columns=columns,
        values=values,
        decimals=0 if count else 1,
        parts=("columns", "rows") if count else (),
        whole="the car models shown",
    )


def _weather_days() -> Table:
    counts: Counter[tuple[str, str]] = Counter(
        (r["date"][:4], r["weather"].capitalize()) for r in _read("seattle_weather")
    )
    rows, columns = ("2012", "2013", "2014", "2015"), ("Drizzle", "Fog", "Rain", "Snow", "Sun")
    return Table(
        **_words("weather", "Days by weather in Seattle", "number of days with {column}", "in {row}", "days"),
        index="year",
        kind="kind of weather",
        rows=rows,
        columns=columns,
        values=tuple(tuple(float(counts[row, column]) for column in columns) for row in rows),
        parts=("columns",),
        whole="the days of the year",
    )


def _rain() -> Table:
    cells = _cells(
        (MONTHS[int(r["date"][5:7]) - 1], r["date"][:4], float(r["precipitation"])) for r in _read("seattle_weather")
    )
    columns = ("2012", "2013", "2014", "2015")
    return Table(
        **_words("precipitation", "Precipitation in Seattle", "precipitation of {column}", "in {row}", "mm"),
        index="month",
        kind="year",
        rows=MONTHS,
        columns=columns,
        values=_grid(cells, MONTHS, columns, 0, sum),
        parts=("rows",),
        whole="the precipitation shown",
    )


def _temperatures() -> Table:
    found = [("San Francisco", r) for r in _read("sf_temps")] + [("Seattle", r) for r in _read("seattle_temps")]
    cells = _cells((MONTHS[int(r["date"][5:7]) - 1], city, float(r["temp"])) for city, r in found)
    columns = ("San Francisco", "Seattle")
    return Table(
        **_words("temperature", "Mean temperature in 2010", "mean temperature of {column}", "in {row}", "°F"),
        index="month",
        kind="city",
        rows=MONTHS,
        columns=columns,
        values=_grid(cells, MONTHS, columns, 1),
        decimals=1,
    )


def _stocks() -> Table:
    found = [r for r in _read("stocks") if r["date"].startswith("Jan ")]
    cells = _cells((r["date"][-4:], r["symbol"], float(r["price"])) for r in found)
    columns = ("AAPL", "AMZN", "GOOG", "IBM", "MSFT")
    rows = tuple(row for row in sorted({row for row, _ in cells}) if all((row, c) in cells for c in columns))
    return Table(
        **_words("stocks", "Share prices in January", "price of {column}", "in {row}", "dollars"),
        index="year",
        kind="share",
        rows=rows,
        columns=columns,
        values=_grid(cells, rows, columns, 1),
        decimals=1,
    )


_STATES = {
    "AK": "Alaska",
    "TX": "Texas",
    "CA": "California",
    "OK": "Oklahoma",
    "FL": "Florida",
    "OH": "Ohio",
    "NY": "New York",
    "GA": "Georgia",
    "MI": "Michigan",
    "MN": "Minnesota",
    "IL": "Illinois",
    "WI": "Wisconsin",
    "KS": "Kansas",
    "IA": "Iowa",
    "MO": "Missouri",
    "AR": "Arkansas",
    "AL": "Alabama",
    "NE": "Nebraska",
    "NV": "Nevada",
    "UT": "Utah",
    "OR": "Oregon",
    "ME": "Maine",
    "VT": "Vermont",
    "HI": "Hawaii",
}


def _airports() -> Table:
    counts = Counter(r["state"] for r in _read("airports"))
    return Table(
        **_words("airports", "Airports by state", "number of {column}", "in {row}", "airports"),
        index="state",
        kind="facility",
        rows=tuple(_STATES.values()),
        columns=("airports",),
        values=tuple((float(counts[code]),) for code in _STATES),
        ordered=False,
        parts=("rows",),
        whole="the airports shown",
    )


def _irises() -> Table:
    columns = {
        "sepalLength": "sepal length",
        "sepalWidth": "sepal width",
        "petalLength": "petal length",
        "petalWidth": "petal width",
    }
    cells = _cells((r["species"], label, r[c]) for r in _read("iris") for c, label in columns.items())
    rows = ("setosa", "versicolor", "virginica")
    return Table(
        **_words("irises", "Iris flowers, means", "mean {column}", "of Iris {row}", "cm"),
        index="species",
        kind="measure",
        rows=rows,
        columns=tuple(columns.values()),
        values=_grid(cells, rows, tuple(columns.values()), 2),
        decimals=2,
        ordered=False,
    )


def _wheat() -> Table:
    found = [r for r in _read("wheat") if r.get("wages") is not None]
    return Table(
        **_words("wheat", "Wheat and wages in England", "price of {column}", "in {row}", "shillings"),
        index="year",
        kind="good",
        rows=tuple(r["year"] for r in found),
        columns=("a quarter of wheat", "a week of labour"),
        values=tuple((round(r["wheat"], 1), round(r["wages"], 1)) for r in found),
        decimals=1,
    )


def _driving() -> Table:
    found = _read("driving")
    return Table(
        **_words("driving", "Driving in the USA", "distance driven {column}", "in {row}", "miles"),
        index="year",
        kind="series",
        rows=tuple(str(r["year"]) for r in found),
        columns=("per person",),
        values=tuple((float(r["miles"]),) for r in found),
    )


_TABLES: dict[str, Callable[[], Table]] = {
    "electricity": _electricity,
    "employment": _employment,
    "barley varieties": lambda: _barley(True),
    "barley sites": lambda: _barley(False),
    "car models": lambda: _cars(True),
    "fuel economy": lambda: _cars(False),
    "weather": _weather_days,
    "precipitation": _rain,
    "temperature": _temperatures,
    "stocks": _stocks,
    "airports": _airports,
    "irises": _irises,
    "wheat": _wheat,
    "driving": _driving,
}
NAMES = tuple(_TABLES)


@functools.cache
def table(name: str) -> Table:
    """One of NAMES."""
    return _TABLES[name]()


@dataclass(frozen=True, slots=True)
class Points:
    """Two figures of each of many things, in groups."""

    name: str
    title: str
    x: str
    y: str
    """What the axes show, with the unit: "weight (lb)"."""
    group: str
    """What a group is: "origin"."""
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    groups: tuple[str, ...]


_CAR_AXES = {
    "Weight_in_lbs": "weight (lb)",
    "Horsepower": "power (hp)",
    "Miles_per_Gallon": "fuel economy (mpg)",
    "Displacement": "displacement (cubic inches)",
    "Acceleration": "time to 60 mph (s)",
}
_IRIS_AXES = {
    "sepalLength": "sepal length (cm)",
    "sepalWidth": "sepal width (cm)",
    "petalLength": "petal length (cm)",
    "petalWidth": "petal width (cm)",
}
POINT_SETS = ("cars", "iris flowers")


@functools.cache
def points(name: str, first: int, second: int) -> Points:
    """One of POINT_SETS, with two different ones of its axes, counted from 0."""
    cars = name == "cars"
    axes = _CAR_AXES if cars else _IRIS_AXES
    x, y = list(axes)[first], list(axes)[second]
    found = [r for r in _read("cars" if cars else "iris") if r[x] is not None and r[y] is not None]
    return Points(
        name=name,
        title="Cars of 1970 to 1982" if cars else "Iris flowers",
        x=axes[x],
        y=axes[y],
        group="origin" if cars else "species",
        xs=tuple(float(r[x]) for r in found),
        ys=tuple(float(r[y]) for r in found),
        groups=tuple(r["Origin" if cars else "species"] for r in found),
    )


def axis_count(name: str) -> int:
    """How many axes a set of points has to choose from."""
    return len(_CAR_AXES if name == "cars" else _IRIS_AXES)
