"""Times, names and colors as pages show them."""

import re
import unicodedata

# Okabe and Ito's colors, which people with color blindness tell apart, and the color of text on them.
COLORS = (
    ("#e69f00", "#000"),
    ("#0072b2", "#fff"),
    ("#009e73", "#000"),
    ("#cc79a7", "#000"),
    ("#f0e442", "#000"),
    ("#56b4e9", "#000"),
    ("#d55e00", "#000"),
)
MICROSECONDS = 1_000_000
MAX_SLUG = 40  # characters of a video's name in that of its page
# Characters that would turn the text around them, or the page, into something else.
_BIDI_CONTROLS = re.compile("[\u202a-\u202e\u2066-\u2069]")


def color_of(person: int) -> int:
    """Return the index in `COLORS` of a person's color: people of neighboring numbers have different ones."""
    return (person - 1) % len(COLORS)


def clock(time_us: int) -> str:
    """Return 0:12.5 or 1:02:03.5."""
    tenths = round(time_us * 10 / MICROSECONDS)
    minutes, rest = divmod(tenths, 600)
    seconds = f"{minutes % 60:02d}:{rest // 10:02d}.{rest % 10}"
    return f"{minutes // 60}:{seconds}" if minutes >= 60 else seconds.removeprefix("0")


def printable(text: str) -> str:
    """Return a text of a file or a user without characters that control what is around it."""
    return _BIDI_CONTROLS.sub("\ufffd", "".join("\ufffd" if unicodedata.category(c) == "Cc" else c for c in text))


def slug_prefix(uri: str) -> str:
    """Return what the name of a file about a video begins with: `interview-3-mp4-`, of `a-z0-9-` alone; empty without any.

    Different videos may have the same.
    """
    name = uri.rstrip("/").rsplit("/", 1)[-1]
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = "-".join(re.findall(r"[a-z0-9]+", plain))[:MAX_SLUG].strip("-")
    return f"{slug}-" if slug else ""
