"""Pages for a browser, all of one look: one file that needs nothing else, with no script and no request.

What people, models and the web wrote is hostile data: jinja2 escapes it, and the page's own policy lets nothing run or
load but the style whose hash it names.
"""

import base64
import hashlib
from collections.abc import Callable, Mapping
from importlib.resources import files

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_REPORT = "dpe_jobs.diagnosis"  # its macros and its look are those of all


def render(package: str, name: str, filters: Mapping[str, Callable[..., str]], **shown: object) -> str:
    """The page of `templates/NAME.html.jinja` of a package, in the report's look and that of its own `NAME.css`."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(where, "templates") for where in (package, _REPORT)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    sheets = dict.fromkeys([(_REPORT, "report.css"), (package, f"{name}.css")])
    css = "".join(files(where).joinpath("templates", sheet).read_text(encoding="utf-8") for where, sheet in sheets)
    return environment.get_template(f"{name}.html.jinja").render(
        css=Markup(css), css_hash=base64.b64encode(hashlib.sha256(css.encode()).digest()).decode(), **shown
    )
