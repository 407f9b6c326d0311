"""Shared by all pages: one style, and escaping of names.

Pages open from disk or a bucket and ask for nothing on any network. Each says in a Content-Security-Policy what it may run; most
run no script.
"""

from microaction.pages.render import render
from microaction.pages.text import COLORS, clock, color_of, printable, slug_prefix

__all__ = ["COLORS", "clock", "color_of", "printable", "render", "slug_prefix"]
