"""Pages as a browser without a network reads them, and what must hold for each."""

import re
from html.parser import HTMLParser
from itertools import pairwise

VOID = {"meta", "img", "rect", "image", "path", "br"}
RUNS_OR_LOADS = {"script", "iframe", "object", "embed", "base", "form", "link", "video", "audio", "source"}
BESIDE = re.compile(r"[a-z0-9-]+\.html")  # a page in the same folder
WITHIN = re.compile(r"data:image/(jpeg|svg\+xml);base64,[A-Za-z0-9+/=]+")


class Page(HTMLParser):
    """The elements of a page, and its text; every element is closed in order."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._pieces: list[str] = []
        self._open: list[str] = []
        self.feed(content.decode())
        assert self._open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        self._pieces.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self) -> str:
        """The text with single spaces, also between elements."""
        return " ".join(" ".join(self._pieces).split())


def assert_harmless(content: bytes) -> Page:
    """Assert that a page runs nothing, loads nothing and says so, and that it can be read without seeing it."""
    page = Page(content)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert not RUNS_OR_LOADS & {tag for tag, _ in page.elements}
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "srcset", "href", "xlink:href", "action"):
            value = attributes.get(name) or ""
            if value.startswith("#"):
                assert value[1:] in ids
            elif value:
                assert BESIDE.fullmatch(value) or WITHIN.fullmatch(value), value[:100]
    (policy,) = (each["content"] for each in page.all("meta") if each.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"url\(|@import", content.decode().partition("</style>")[0])

    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("main")) == 1
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(level <= before + 1 for before, level in pairwise(levels)), "no level is skipped"
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        assert attributes.get("aria-labelledby") in [None, *ids], tag
        if tag == "img":
            assert attributes["alt"]
        if tag == "th":
            assert attributes["scope"] in {"col", "row"}
        if tag == "table":
            assert attributes["aria-labelledby"]
    return page
