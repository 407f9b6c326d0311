"""Check all links of the repository's Markdown pages, without network: `python -m docs.scripts.check_links`.

Relative links must name files of the repository, and their anchors headings of them; the built site gives headings the same
anchors as GitHub. External links must be well-formed https:// URLs.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[2]
PAGES = ("*.md", "docs/**/*.md", "cluster/**/*.md", "tests/**/*.md")
_FENCED = re.compile(r"^(?P<indent> *)(?P<fence>```+|~~~+).*?^(?P=indent)(?P=fence) *$", re.MULTILINE | re.DOTALL)
_INLINE_CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_LINK = re.compile(r"\]\((?P<target>[^()\s]+)(?:\s+\"[^\"]*\")?\)")
_DEFINITION = re.compile(r"^\[[^\]]+\]:\s+(?P<target>\S+)", re.MULTILINE)
_HTML = re.compile(r"<(?:a|img|source)\b[^>]*?\b(?:href|src|srcset)=\"(?P<target>[^\"]+)\"")
_AUTOLINK = re.compile(r"<(?P<target>https?://[^>\s]+)>")
_HEADING = re.compile(r"^#{1,6} +(?P<text>.+?) *#*$", re.MULTILINE)
_ID = re.compile(r"\bid=\"(?P<id>[^\"]+)\"|\{ *#(?P<attribute>[\w-]+)")


class Problem(NamedTuple):
    """A link that leads nowhere."""

    page: str
    target: str
    reason: str

    def __str__(self) -> str:
        return f"{self.page}: {self.target}: {self.reason}"


def all_problems(root: Path = ROOT) -> list[Problem]:
    """Return the problems of all pages of a repository."""
    pages = sorted({page for pattern in PAGES for page in root.glob(pattern)})
    return [problem for page in pages for problem in problems_of(page, root)]


def problems_of(page: Path, root: Path = ROOT) -> Iterator[Problem]:
    """Yield the problems of one page."""
    name = page.relative_to(root).as_posix()
    for target in targets_of(page.read_text()):
        if (reason := _problem(target, page, root)) is not None:
            yield Problem(name, target, reason)


def targets_of(text: str) -> Iterator[str]:
    """Yield what the links and images of a page lead to."""
    without_code = _INLINE_CODE.sub("", _without_blocks(text))
    for pattern in (_LINK, _DEFINITION, _HTML, _AUTOLINK):
        for match in pattern.finditer(without_code):
            yield match["target"]


def anchors_of(text: str) -> set[str]:
    """Return the anchors of a page: of its headings, and those that it sets itself."""
    headings = (match["text"] for match in _HEADING.finditer(_without_blocks(text)))
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "") for heading in headings)
    return {github_slug(heading) for heading in plain} | {
        match["id"] or match["attribute"] for match in _ID.finditer(text)
    }


def github_slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading: lower case, without punctuation, hyphens for spaces."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _problem(target: str, page: Path, root: Path) -> str | None:
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        return _external_problem(target)
    path = page if not parts.path else (page.parent / unquote(parts.path))
    if parts.path.startswith("/"):
        return "links must be relative, so that they work on GitHub and on the built site"
    if not path.exists():
        return "no such file"
    if not path.resolve().is_relative_to(root.resolve()):
        return "leads out of the repository"
    if parts.fragment and (path.suffix != ".md" or unquote(parts.fragment) not in anchors_of(path.read_text())):
        return "no such heading"
    return None


def _external_problem(target: str) -> str | None:
    parts = urlsplit(target)
    if parts.scheme == "mailto":
        return None
    host = parts.hostname or ""
    if parts.scheme != "https" or "." not in host or not re.fullmatch(r"[A-Za-z0-9.-]+", host):
        return "is not a well-formed https:// URL"
    return None


def _without_blocks(text: str) -> str:
    return _COMMENT.sub("", _FENCED.sub("", text))


def main() -> None:
    """Print the problems; exit with 1 if there are any."""
    problems = all_problems()
    sys.stdout.writelines(f"{problem}\n" for problem in problems)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
