"""What the pages say is true: flags exist, figures are those of RESULTS.md, examples parse."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.scripts.reference_commands import flags_of
from microaction.cli import COMMANDS
from tests.docs.pages import BLOCK, FLAG, ROOT, WRITTEN_PAGES, blocks, commands, name_of

RESULTS = ROOT / "tests" / "benchmarks" / "RESULTS.md"
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
MIN_FRAGMENT = 8  # characters: shorter ones occur everywhere
FOREIGN_FLAGS = {"--working-dir", "--version", "--extra-index-url", "--filename"}


@pytest.mark.parametrize("page", WRITTEN_PAGES, ids=name_of)
def test_flags_in_examples_exist(page: Path) -> None:
    unknown = [
        f"microaction {command} {flag}"
        for command, flags in commands(page)
        for flag in flags
        if flag not in flags_of(command)
    ]
    assert unknown == []


def test_flags_are_found_in_examples() -> None:
    calls = [flag for page in WRITTEN_PAGES for _, flags in commands(page) for flag in flags]
    assert len(calls) > 50


@pytest.mark.parametrize("page", WRITTEN_PAGES, ids=name_of)
def test_python_examples_parse(page: Path) -> None:
    for code in blocks(page, "python"):
        indent = len(code) - len(code.lstrip(" "))
        ast.parse("\n".join(line[indent:] for line in code.splitlines()))


@pytest.mark.parametrize("page", WRITTEN_PAGES, ids=name_of)
def test_flags_named_in_text_exist(page: Path) -> None:
    known = {flag for command in COMMANDS for flag in flags_of(command)}
    text = BLOCK.sub("", page.read_text())
    mentioned = {flag for code in re.findall(r"`(--[^`]+)`", text) for flag in FLAG.findall(code)}
    assert sorted(mentioned - known - FOREIGN_FLAGS) == []


@pytest.mark.parametrize("page", [ROOT / "docs" / "benchmarks.md"], ids=name_of)
def test_figures_in_tables_are_those_of_results(page: Path) -> None:
    figures = set(_NUMBER.findall(RESULTS.read_text().replace(",", "")))
    rows = [line for line in page.read_text().replace(",", "").splitlines() if line.startswith("|")]
    cells = [cell for row in rows for cell in row.split("|")[2:]]
    assert [number for cell in cells for number in _NUMBER.findall(cell) if number not in figures] == []


def test_messages_in_troubleshooting_are_those_of_the_code() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    rows = [
        line for line in page.partition("## Messages")[2].partition("## Ray")[0].splitlines() if line.startswith("| `")
    ]
    texts = "\n".join(text for file in (ROOT / "microaction").rglob("*.py") for text in messages_of(file))
    fragments = [
        fragment.strip()
        for row in rows
        for message in re.findall(r"`([^`]+)`", row.split("|")[1])
        for fragment in message.split("…")
        if len(fragment.strip()) > MIN_FRAGMENT
    ]
    assert len(fragments) > len(rows) / 2
    assert [fragment for fragment in fragments if fragment not in texts] == []


def messages_of(file: Path) -> Iterator[str]:
    """Yield the strings of a module, with `…` in place of what is inserted."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("page", WRITTEN_PAGES, ids=name_of)
def test_nothing_is_left_to_fill_in(page: Path) -> None:
    assert not re.search(r"@@|TODO|FIXME", page.read_text())


def test_shell_examples_have_balanced_quotes() -> None:
    for page in WRITTEN_PAGES:
        for code in blocks(page, "shell"):
            shlex.split(code, comments=True)
