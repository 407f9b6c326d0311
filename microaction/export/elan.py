"""ELAN's files (`.eaf`, EAF 3.0), one for each video.

Each person has a tier for each body part, so all files have the same tiers, and each tier has a child with the scores.
Annotations on a tier cannot overlap: events that do are on further tiers, "Ann · head 2", of which there are as few as possible.
The values are entries of a controlled vocabulary of the 52 actions. Videos that could not be opened have no file.
"""

import re
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from xml.etree import ElementTree

from microaction import storage
from microaction.export.cells import plain_text
from microaction.export.display import person_names, published_at, score_text, span_ms
from microaction.export.exporter import Exporter, Written
from microaction.export.file_names import path_between, write_files
from microaction.export.labels import Event, Labels, VideoLabels
from microaction.taxonomy import ACTIONS, BODY_PART_OF, BODY_PARTS

if TYPE_CHECKING:
    from pympi.Elan import Eaf

SUFFIX = ".eaf"
DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>'
FORMAT = "3.0"
SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
ANNOTATOR = "microaction"
VOCABULARY = "MA-52 micro-actions"
ACTION_TYPE, SCORE_TYPE = "micro-action", "score"
LANGUAGE = ("eng", "http://cdb.iso.org/lg/CDB-00138502-001", "English (eng)")  # as ELAN writes it
URN_PREFIX = "urn:nl-mpi-tools-elan-eaf:"
MIME_TYPES = {
    "mp4": "video/mp4",
    "m4v": "video/mp4",
    "mov": "video/quicktime",
    "mpg": "video/mpeg",
    "mpeg": "video/mpeg",
    "avi": "video/x-msvideo",
    "mkv": "video/x-matroska",
    "webm": "video/webm",
    "wmv": "video/x-ms-wmv",
    "flv": "video/x-flv",
    "ogv": "video/ogg",
    "3gp": "video/3gpp",
    "ts": "video/mp2t",
    "mts": "video/mp2t",
    "m2ts": "video/mp2t",
}
OTHER_MIME_TYPE = "video/*"  # ELAN's word for videos of any kind
# ELAN takes relative paths as they are; these characters alone would make them an invalid reference, or end it.
_ESCAPED_IN_PATHS = re.compile("[\x00-\x1f\x7f-\x9f%#?\\\\\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class Tier:
    """Events of a person and body part that do not overlap, by time."""

    person: int
    body_part: int
    number: int
    events: tuple[Event, ...]

    def name(self, person_name: str) -> str:
        """Return "Ann · head", or "Ann · head 2"."""
        return f"{person_name} · {BODY_PARTS[self.body_part]}" + (f" {self.number}" if self.number > 1 else "")


def write_elan(labels: Labels, videos: Iterable[VideoLabels], dest: str) -> Written:
    """Write an `.eaf` for each video that could be opened."""
    return write_files(labels, videos, dest, SUFFIX, lambda video, folder: eaf_of(labels, video, folder))


def eaf_of(labels: Labels, video: VideoLabels, folder: str) -> bytes:
    """Return the content of a video's `.eaf`, which refers to the video from a folder."""
    from pympi.Elan import Eaf, to_adocument

    eaf = Eaf(author=ANNOTATOR)
    eaf.remove_tier("default")
    eaf.remove_linguistic_type("default-lt")
    _add_vocabulary(eaf)
    _add_tiers(eaf, video)
    _describe(eaf, labels, video, folder)
    document = to_adocument(eaf, pretty=False)
    for annotation in document.iter("ALIGNABLE_ANNOTATION"):
        annotation.set("CVE_REF", _entry_id(ACTIONS.index(annotation.findtext("ANNOTATION_VALUE"))))
    ElementTree.indent(document)
    text: str = ElementTree.tostring(document, encoding="unicode")  # faster than with the declaration
    return f"{DECLARATION}\n{text}\n".encode()


def tiers_of(video: VideoLabels) -> Iterator[Tier]:
    """Yield the tiers of a video: by person and body part, at least one of each."""
    events_of: dict[tuple[int, int], list[Event]] = defaultdict(list)
    for event in video.events:
        events_of[event.person, BODY_PART_OF[event.action_id]].append(event)
    for person in video.persons:
        for body_part in range(len(BODY_PARTS)):
            for number, lane in enumerate(_lanes(events_of[person, body_part]), start=1):
                yield Tier(person, body_part, number, lane)


def _lanes(events: Sequence[Event]) -> list[tuple[Event, ...]]:
    """Distribute events over as few lanes as possible, at least one, so that those of a lane do not overlap."""
    lanes: list[list[Event]] = [[]]
    for event in sorted(events, key=lambda event: (span_ms(event), event.action_id)):
        start_ms, _ = span_ms(event)
        for lane in lanes:
            if not lane or span_ms(lane[-1])[1] <= start_ms:
                lane.append(event)
                break
        else:
            lanes.append([event])
    return [tuple(lane) for lane in lanes]


def _describe(eaf: "Eaf", labels: Labels, video: VideoLabels, folder: str) -> None:
    eaf.adocument.update(
        {
            "DATE": published_at(labels).isoformat(),
            "VERSION": FORMAT,
            "FORMAT": FORMAT,
            "xsi:noNamespaceSchemaLocation": SCHEMA,
        }
    )
    eaf.header = {"MEDIA_FILE": "", "TIME_UNITS": "milliseconds"}
    between = path_between(folder, video.uri)
    eaf.add_linked_file(
        _media_url(video.uri), None if between is None else _relative_url(between), mime_type(video.uri)
    )
    eaf.properties = [
        (
            "URN",
            URN_PREFIX + str(uuid.uuid5(uuid.NAMESPACE_URL, f"{_media_url(video.uri)}#{labels.totals['version']}")),
        ),
        ("lastUsedAnnotationId", eaf.maxaid),
        ("microaction.model", plain_text(str(video.facts["model"]))),
        ("microaction.model_digest", video.facts["model_digest"]),
        ("microaction.settings_digest", video.facts["settings_digest"]),
    ]


def mime_type(uri: str) -> str:
    """Return the MIME type that a video's suffix stands for."""
    return MIME_TYPES.get(uri.rpartition(".")[2].lower(), OTHER_MIME_TYPE)


def _media_url(uri: str) -> str:
    """Return the location of a video as a URI."""
    scheme, separator, path = uri.partition("://") if storage.is_remote(uri) else ("file", "://", uri)
    return scheme + separator + quote(path, errors="replace")


def _relative_url(path: str) -> str:
    return _ESCAPED_IN_PATHS.sub(lambda match: quote(match[0], errors="replace"), path)


def _entry_id(action_id: int) -> str:
    return f"ma52-{action_id:02d}"


def _add_vocabulary(eaf: "Eaf") -> None:
    language = LANGUAGE[0]
    eaf.add_language(*LANGUAGE)
    eaf.add_controlled_vocabulary(VOCABULARY)
    eaf.add_cv_description(VOCABULARY, language, "The 52 micro-actions of MA-52, by body part")
    for action_id, action in enumerate(ACTIONS):
        description = f"{BODY_PARTS[BODY_PART_OF[action_id]]}, MA-52 label {action_id}"
        eaf.add_cv_entry(VOCABULARY, _entry_id(action_id), [(action, language, description)])
    action_type: dict[str, Any] = {
        "LINGUISTIC_TYPE_ID": ACTION_TYPE,
        "TIME_ALIGNABLE": "true",
        "GRAPHIC_REFERENCES": "false",
        "CONTROLLED_VOCABULARY_REF": VOCABULARY,
    }
    eaf.add_linguistic_type(ACTION_TYPE, param_dict=action_type)
    eaf.add_linguistic_type(SCORE_TYPE, constraints="Symbolic_Association", timealignable=False)


def _add_tiers(eaf: "Eaf", video: VideoLabels) -> None:
    """Add tiers and annotations: into pympi's tables, as its own methods search all annotations for each that they add."""
    names = person_names(video)
    tiers = list(tiers_of(video))
    # By time, ends before starts: ELAN orders slots of one time as they come.
    slots = sorted(
        (time_ms, is_start, place, row)
        for place, tier in enumerate(tiers)
        for row, event in enumerate(tier.events)
        for time_ms, is_start in zip(span_ms(event), (True, False), strict=True)
    )
    slot_of = {(place, row, is_start): eaf.generate_ts_id(time_ms) for time_ms, is_start, place, row in slots}
    for place, tier in enumerate(tiers):
        name = tier.name(names[tier.person])
        scores = f"{name} · score"
        eaf.add_tier(name, ACTION_TYPE, part=names[tier.person], ann=ANNOTATOR)
        eaf.add_tier(scores, SCORE_TYPE, parent=name, part=names[tier.person], ann=ANNOTATOR)
        for row, event in enumerate(tier.events):
            annotation, score = eaf.generate_annotation_id(), eaf.generate_annotation_id()
            eaf.tiers[name][0][annotation] = (
                slot_of[place, row, True],
                slot_of[place, row, False],
                ACTIONS[event.action_id],
                None,
            )
            eaf.tiers[scores][1][score] = (annotation, score_text(event.probability), None, None)


EXPORTER = Exporter(title="ELAN, a file for each video", write=write_elan)
