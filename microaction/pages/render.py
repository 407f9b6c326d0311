"""Templates to pages."""

from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from microaction.pages.text import COLORS, printable


def render(package: str, template: str, **values: Any) -> bytes:
    """Return a page: a template of a package, which extends `base.html.j2` of this one.

    All text is escaped, unless a template marks it as safe; the filter `printable` is that of this package. What UTF-8 cannot
    say becomes a question mark.
    """
    return _environment(package).get_template(template).render(colors=COLORS, **values).encode(errors="replace")


@cache
def _environment(package: str) -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "."), PackageLoader("microaction.pages", ".")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["printable"] = printable
    return environment
