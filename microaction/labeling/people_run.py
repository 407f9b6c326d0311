"""One run of `microaction people`: who is in an archive's videos, as a list that users edit, and a contact sheet to check it by.

lease → catalog → looks → people → people.parquet → contact sheet. The looks are those that `label` takes: into the same output,
it takes none again.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

import pyarrow.compute as pc

from microaction import storage
from microaction.distributed.resources import await_nodes
from microaction.labeling.catalog import PassedOver, catalog_of_run
from microaction.labeling.contact import VideoFacts
from microaction.labeling.contact_page import left_out_of
from microaction.labeling.contact_sheet import ContactSource, PageWriter, write_contact_sheet
from microaction.labeling.finding import find_archive_people
from microaction.labeling.ledger import is_retryable
from microaction.labeling.looks import check_detector
from microaction.labeling.people import PeopleError, people_warnings, person_scale
from microaction.labeling.people_file import check_unedited, write_people_list
from microaction.labeling.people_list import list_of_people, people_of_list, read_people_list
from microaction.labeling.run import LEASE_FOLDER
from microaction.labeling.settings import PeopleSettings
from microaction.models import Checkpoint, load_checkpoint
from microaction.pages import clock
from microaction.registry import resolve
from microaction.storage.lease import hold_lease
from microaction.video.sandbox import Limits
from microaction.video.windows import microseconds

OnStage = Callable[[Literal["catalog", "people", "contact"], float, float], None]


@dataclass
class PeopleTotals:
    """The people of an archive in numbers. `left_out` counts the spans of people who are not labeled, by the kind of error."""

    num_videos: int = 0
    num_unreadable: int = 0
    num_people: int = 0
    num_shots: int = 0
    nobody_s: float = 0.0
    left_out: Counter[str] = field(default_factory=Counter)
    left_out_s: float = 0.0

    def __str__(self) -> str:
        """Return "3 people in 12 shots of 2 videos; nobody is seen for 0:03.0"."""
        people, shots, videos = (
            f"{count} {noun if count == 1 else plural}"
            for count, noun, plural in (
                (self.num_people, "person", "people"),
                (self.num_shots, "shot", "shots"),
                (self.num_videos, "video", "videos"),
            )
        )
        parts = [f"{people} in {shots} of {videos}", f"nobody is seen for {clock(microseconds(self.nobody_s))}"]
        if self.left_out:
            parts.append(f"left out are {left_out_of(self.left_out, self.left_out_s)}")
        return "; ".join(parts)


@dataclass(frozen=True)
class PeopleSummary:
    """What a run found, and where it wrote it; `people_uri` is None where a given list was shown. `warnings` are sentences.

    `num_to_retry` counts the videos and parts of videos that failed for transient reasons, so that the same command retries them.
    """

    totals: PeopleTotals
    num_to_retry: int
    people_uri: str | None
    contact_uri: str
    passed_over: str
    warnings: tuple[str, ...] = ()


def run_people(settings: PeopleSettings, *, on_stage: OnStage = lambda stage, done, total: None) -> PeopleSummary:
    """Find the people of an archive and write their list and the contact sheet into `settings.out`. Needs a running Ray.

    `on_stage(stage, done, total)` counts videos that are cataloged, seconds of video that are looked at, and pages. Raises
    `CatalogError` (no videos), `CheckpointError` and `RegistryError` (no usable model), `DetectorError` (no person detector),
    `PeopleError` if the list in the output was edited or the given one does not fit, and `LeaseHeldError` if another process
    is working in the output.
    """
    checkpoint = _checkpoint(settings)
    check_detector()
    with hold_lease(storage.join(settings.out, LEASE_FOLDER)) as lease:
        if settings.people is None and not settings.overwrite:
            check_unedited(settings.out)  # not after hours of looking
        await_nodes(settings)
        catalog = catalog_of_run(settings, lambda done, total: on_stage("catalog", done, total))
        listed = None
        if settings.people is not None:
            listed = people_of_list(read_people_list(settings.people), settings.people, catalog)
        limits = Limits(settings.decode_timeout_s, int(settings.decode_memory_gib * 2**30))
        found = find_archive_people(
            settings.out,
            catalog,
            person_scale(checkpoint),
            limits,
            retry_failed=settings.retry_failed,
            on_video=lambda done, total: on_stage("people", done, total),
        )
        people = found.people if listed is None else listed
        lease.check()
        people_uri = None
        if listed is None:
            people_uri = write_people_list(list_of_people(people, catalog), settings.out, overwrite=settings.overwrite)
        source = ContactSource(catalog, people, found.looks)
        totals = totals_of(source.facts())
        contact_uri, num_incomplete = write_contact_sheet(
            PageWriter(settings.out, settings.archive, checkpoint.config.preprocessing, limits),
            source,
            str(totals),
            on_video=lambda done, total: on_stage("contact", done, total),
        )
        return PeopleSummary(
            totals,
            num_to_retry=max(found.num_to_retry, num_incomplete) + (pc.sum(is_retryable(catalog)).as_py() or 0),
            people_uri=people_uri,
            contact_uri=contact_uri,
            passed_over=str(PassedOver.of(catalog)),
            warnings=tuple(people_warnings(people)),
        )


def totals_of(facts: Iterable[VideoFacts]) -> PeopleTotals:
    """Return the numbers of all videos together."""
    totals = PeopleTotals()
    for each in facts:
        totals.num_videos += 1
        totals.num_unreadable += not each.is_readable
        totals.num_people += each.num_people or 0
        totals.num_shots += each.num_shots or 0
        totals.nobody_s += each.nobody_s or 0.0
        totals.left_out += each.left_out
        totals.left_out_s += each.left_out_s
    return totals


def _checkpoint(settings: PeopleSettings) -> Checkpoint:
    """Return the model that will label. Raises `PeopleError` for one that has no use for a list of people."""
    checkpoint = load_checkpoint(resolve(settings.model))
    if checkpoint.config.needs_skeletons:
        raise PeopleError(f"{checkpoint.ref.uri} sees the skeletons of people: it has no use for a list of people")
    return checkpoint
