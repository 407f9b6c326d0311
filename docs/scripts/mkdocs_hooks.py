"""Hooks of the site: pages of the repository outside of docs/ join it, and links to its other files become plain text.

In the repository, pages link to each other by relative paths, as GitHub needs it.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from pymdownx.slugs import slugify

ROOT = Path(__file__).parents[2]
DOCS = "docs"
# Page of the repository → page of the site.
REPOSITORY_PAGES = {
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "cluster/README.md": "guides/cluster.md",
    "tests/benchmarks/RESULTS.md": "benchmark-results.md",
}
_SITE_PAGES = {site_page: page for page, site_page in REPOSITORY_PAGES.items()}
_LINK = re.compile(r"(?<!!)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<path>[^()\s#:]+)(?P<anchor>#[^()\s]+)?\)")


def on_config(config: Any, **_: Any) -> Any:
    """Give headings the anchors that GitHub gives them."""
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    return config


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the pages that lie outside of docs/."""
    for page, site_page in REPOSITORY_PAGES.items():
        files.append(File.generated(config, site_page, content=(ROOT / page).read_text()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace links that lead out of docs/."""
    site_page: str = page.file.src_uri
    here = posixpath.dirname(_SITE_PAGES.get(site_page, f"{DOCS}/{site_page}"))

    def replaced(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(here, match["path"]))
        if target in REPOSITORY_PAGES:
            target = REPOSITORY_PAGES[target]
        elif target.startswith(f"{DOCS}/"):
            target = target.removeprefix(f"{DOCS}/")
        else:
            return match["text"]
        link = posixpath.relpath(target, posixpath.dirname(site_page) or ".")
        return f"[{match['text']}]({link}{match['anchor'] or ''})"

    return _LINK.sub(replaced, markdown)
