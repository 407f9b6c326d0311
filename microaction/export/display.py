"""How exports write times, scores and names: whole milliseconds, three decimals, unique names."""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable
from datetime import UTC, datetime
from typing import TypeVar

from microaction.export.cells import plain_text
from microaction.export.labels import Event, Labels, VideoLabels

MILLISECONDS = 1000
DIGEST_LENGTH = 8  # hexadecimal digits
MAX_ATTEMPTS = 100  # at a name of its own for everything; each takes a longer one

Item = TypeVar("Item", bound=Hashable)


def span_ms(event: Event) -> tuple[int, int]:
    """Return start and end of an event in whole milliseconds, the end later than the start: no program takes events of 0 ms."""
    start_ms = max(round(event.start_s * MILLISECONDS), 0)
    return start_ms, max(round(event.end_s * MILLISECONDS), start_ms + 1)


def score_text(probability: float) -> str:
    """Return a score with three decimals."""
    return f"{probability:.3f}"


def published_at(labels: Labels) -> datetime:
    """Return when labels were published: the time of an export would make equal labels different files."""
    return datetime.strptime(labels.totals["version"].partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def person_names(video: VideoLabels) -> dict[int, str]:
    """Return what the people of a video are called, without line breaks and control characters.

    Of people with one name each has the number too: "Ann (person 1)".
    """

    def spelled(person: int, attempt: int) -> str:
        name = " ".join(plain_text(video.person_name(person)).split()) or f"person {person}"
        return name + f" (person {person})" * attempt

    return distinct(video.persons, spelled)


def distinct(
    items: Iterable[Item],
    spelled: Callable[[Item, int], str],
    compared: Callable[[str], str] = str,
    taken: Collection[str] = (),
) -> dict[Item, str]:
    """Return a name for each item; no two of them, `compared`, are equal or `taken`.

    `spelled(item, attempt)` is the name at the first attempt, 0, or a longer one. Those whose names are equal make the next
    attempt together, so the result depends on neither order nor chance. Raises `ValueError` if names are equal to the end.
    """
    names = {item: spelled(item, 0) for item in items}
    attempt_of: Counter[Item] = Counter()
    for _ in range(MAX_ATTEMPTS):
        count_of = Counter(compared(name) for name in names.values())
        unfit = [item for item, name in names.items() if count_of[compared(name)] > 1 or compared(name) in taken]
        if not unfit:
            return names
        for item in unfit:
            attempt_of[item] += 1
            names[item] = spelled(item, attempt_of[item])
    raise ValueError(f"no names of their own for {unfit[:3]}")


def short_digest(text: str) -> str:
    """Return a few hexadecimal digits that hardly any other text has."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:DIGEST_LENGTH]
