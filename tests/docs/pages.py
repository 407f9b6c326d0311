"""The Markdown pages of the repository, and their code blocks."""

import re
from collections.abc import Iterator
from pathlib import Path

from docs.scripts.generate_reference import GENERATORS
from microaction.cli import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "cluster" / "README.md", *(ROOT / "docs").rglob("*.md")])
WRITTEN_PAGES = [page for page in PAGES if page.relative_to(ROOT).as_posix() not in GENERATORS]
BLOCK = re.compile(r"^ *```(?P<language>[a-z]+)\n(?P<code>.*?)^ *```", re.MULTILINE | re.DOTALL)
FLAG = re.compile(r"(?<!\S)--[a-z][a-z0-9.-]*(?![\w.])")
_COMMAND = re.compile(rf"(?:microaction|python -m jobs\.)\s?({'|'.join(COMMANDS)})\b(?P<rest>[^\n|#]*)")


def name_of(page: Path) -> str:
    """Return a page's path in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> Iterator[str]:
    """Yield the code blocks of a page in some languages."""
    for match in BLOCK.finditer(page.read_text()):
        if match["language"] in languages:
            yield match["code"]


def commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield (command, flags) of each call of `microaction` in a page."""
    for code in blocks(page, "shell", "console", "text"):
        joined = re.sub(r"\\\n\s*", " ", code)
        for match in _COMMAND.finditer(joined):
            yield match[1], FLAG.findall(match["rest"])
