"""What all pages share: text that is only read, no network, one style, and figures that are the same every time."""

import base64
import re
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from microaction.evaluation.calibration import ConfidenceBin
from microaction.evaluation.detection import Agreement
from microaction.evaluation.detection_plots import map_plot, precision_recall_plot
from microaction.evaluation.plots import confusion_plot, per_class_plot, reliability_plot
from microaction.pages import COLORS, color_of, printable, render
from microaction.taxonomy import ACTIONS
from microaction.training.report import curves_plot
from microaction.training.state import Epoch
from tests.conftest import ROOT
from tests.export.outputs import HOSTILE_NAMES
from tests.pages.reading import assert_harmless

TEMPLATES = sorted((ROOT / "microaction").rglob("*.j2"))
BASE = ROOT / "microaction/pages/base.html.j2"
PAGES = [path for path in TEMPLATES if path != BASE and not path.name.endswith("macros.html.j2")]
LOADS = re.compile(r"""(?:src|srcset|href|action|poster|data)\s*=\s*["']?\s*(?:https?:|//)|url\(|@import""")
HOSTILE = (
    *HOSTILE_NAMES,
    "\"><img src=x onerror=alert(1)>'",
    "</title></style><script>",
    "{{ 7 * 7 }}",
    "\ud800",
    "\x00\x1b[31m",
)
MIN_CONTRAST = 4.5  # WCAG 2 AA, for text
MAX_SVG_BYTES = 300_000
PIXELS_PER_POINT = 96 / 72
PAGE_PIXELS = 62 * 16  # the width of a page's text
MIN_TEXT_PIXELS = 9.5


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_only_read(text: str) -> None:
    page = assert_harmless(render("tests.pages", "page.html.j2", text=text, values=[0.5], svg="PHN2Zy8+"))
    assert {attributes["alt"] for attributes in page.all("img")} == {text.encode(errors="replace").decode()}
    assert printable(text).encode(errors="replace").decode() in page.text


def test_figures_among_fractions_are_whole_where_they_count() -> None:
    page = render("tests.pages", "page.html.j2", text="x", values=[2288.0, 1.0, 0.25, 1.5, float("nan")], svg="")
    assert re.findall(r"<td[^>]*>([^<]*)</td>", page.decode()) == ["2288", "1.0000", "0.2500", "1.5000", "nan"]


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_every_page_extends_the_base(path: Path) -> None:
    text = path.read_text()
    assert text.startswith('{% extends "base.html.j2" %}\n')
    assert "{% block title %}" in text
    assert "<style" not in text, "rules are in the block `style`"


def test_all_pages_are_found() -> None:
    assert len(PAGES) >= 5
    assert not [path for path in (ROOT / "microaction").rglob("*.html*") if path.suffix != ".j2"]


@pytest.mark.parametrize("path", TEMPLATES, ids=named)
def test_no_template_asks_for_anything_on_a_network(path: Path) -> None:
    text = path.read_text()
    assert not LOADS.search(text.replace('fill="url(#', ""))
    policies = re.findall(r"{% block policy %}(.*?){% endblock %}", text)
    assert len(policies) == (1 if path == BASE else min(len(policies), 1))
    for policy in policies:
        assert policy.startswith("default-src 'none'")
        assert not re.search(r"https?:|\*|unsafe-eval|script-src[^;]*unsafe-inline", policy)


def luminance(color: str) -> float:
    """Return the relative luminance of #rgb or #rrggbb as WCAG defines it."""
    digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
    parts = np.array([int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_text_on_every_color_is_legible() -> None:
    assert all(contrast(fill, text) >= MIN_CONTRAST for fill, text in COLORS)


def test_text_is_legible_in_light_dark_and_print() -> None:
    schemes = [dict(re.findall(r"--(\w+): (#\w+);", rules)) for rules in re.findall(r":root {(.*?)}", BASE.read_text())]
    assert len(schemes) == 3
    for colors in schemes:
        for text in ("text", "note", "link", "bad"):
            assert contrast(colors[text], colors["page"]) >= MIN_CONTRAST
            assert contrast(colors[text], colors["mark"]) >= MIN_CONTRAST


def test_colors_differ_also_for_the_color_blind() -> None:
    # Viénot, Brettel and Mollon 1999, on linear RGB: protanopia, deuteranopia.
    views = [
        np.eye(3),
        np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]),
        np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]),
    ]
    linear = [(np.array([int(fill[i : i + 2], 16) / 255 for i in (1, 3, 5)])) ** 2.2 for fill, _ in COLORS]
    for view in views:
        seen = [np.clip(view @ color, 0, 1) ** (1 / 2.2) for color in linear]
        assert min(np.linalg.norm(one - other) for one, other in combinations(seen, 2)) > 0.1
    assert [color_of(person) for person in (1, 7, 8)] == [0, 6, 0]


def curves() -> bytes:
    names = ("loss", "action_top1", "body_top1", "f1_mean")
    epochs = [Epoch(number, 0.1, 1, dict.fromkeys(names, 0.5), {}, 0.0) for number in range(1, 101)]
    return curves_plot(np.random.default_rng(0).normal(3, 1, 100_000), epochs)


def detections() -> bytes:
    rng = np.random.default_rng(0)
    score_D = rng.random(200_000)
    return precision_recall_plot(score_D, rng.random(200_000) < score_D, 120_000, Agreement(120_000, 90_000, 60_000))


FIGURES: dict[str, Callable[[], bytes]] = {
    "curves of a long run": curves,
    "many detections": detections,
    "confusion": lambda: confusion_plot(np.random.default_rng(0).integers(0, 9, (52, 52)), ACTIONS),
    "per class": lambda: per_class_plot([{"f1": 0.5, "support": 12_345}] * 52, ACTIONS),
    "calibration": lambda: reliability_plot([ConfidenceBin(0.0, 0.1, 30, 0.05, 0.04)], is_log=True),
    "overlaps": lambda: map_plot((0.2, 0.5, 0.7), np.array([0.6, 0.4, 0.1]), np.array([0.7, 0.5, 0.2])),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_small_legible_and_the_same_every_time(name: str) -> None:
    svg = FIGURES[name]()
    assert svg == FIGURES[name]()
    assert len(svg) < MAX_SVG_BYTES
    assert b"<dc:date>" not in svg
    assert not re.search(rb"""href=["']?(https?:|//|file:)|<script""", svg)
    root = ElementTree.fromstring(svg)
    assert float(root.attrib["width"].removesuffix("pt")) * PIXELS_PER_POINT <= PAGE_PIXELS
    styles = [element.attrib.get("style", "") for element in root.iter("{http://www.w3.org/2000/svg}text")]
    sizes = [float(size) for style in styles for size in re.findall(r"([\d.]+)px", style)]
    assert sizes, "text is text"
    assert min(sizes) * PIXELS_PER_POINT >= MIN_TEXT_PIXELS


def test_a_figure_is_in_its_page() -> None:
    svg = FIGURES["overlaps"]()
    page = assert_harmless(
        render("tests.pages", "page.html.j2", text="x", values=[], svg=base64.b64encode(svg).decode())
    )
    sources = {attributes["src"] or "" for attributes in page.all("img")}
    assert [base64.b64decode(source.partition(",")[2]) for source in sources] == [svg]
