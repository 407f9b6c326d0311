"""Labelled clips by name: MA-52's list files, a line "name.mp4 label" per clip."""

from dataclasses import dataclass

from microaction import storage


class ManifestError(ValueError):
    """A list file cannot be read as one; the message names the file and the line."""


@dataclass(frozen=True)
class Clip:
    """A clip and its action label. `name` is the file's name as listed, `uri` where it lies."""

    name: str
    uri: str
    label: int


def read_list(list_uri: str, videos: str, num_classes: int | None) -> list[Clip]:
    """The clips of a list file, in its order; `videos` is the folder that holds them.

    Empty lines are passed over. Raises `ManifestError` for a missing or empty list, a line that is not "name label", a label
    outside [0, num_classes) if `num_classes` is given, and a clip that is listed twice.
    """
    try:
        text = storage.read_bytes(list_uri).decode()
    except FileNotFoundError:
        raise ManifestError(f"no list file at {list_uri}; it holds a line 'name.mp4 label' per clip") from None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{list_uri} is not a text file in UTF-8: {error}") from error
    clips: dict[str, Clip] = {}
    for line_number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{list_uri}, line {line_number}"
        name, _, label = line.strip().rpartition(" ")
        if not name or not label.isdecimal():
            raise ManifestError(f"{where}: {line!r} is not 'name.mp4 label'")
        if num_classes is not None and int(label) >= num_classes:
            raise ManifestError(f"{where}: label {label} must be below {num_classes}, the number of classes")
        if name in clips:
            raise ManifestError(f"{where}: {name} is listed a second time")
        clips[name] = Clip(name, storage.join(videos, name), int(label))
    if not clips:
        raise ManifestError(f"{list_uri} lists no clips")
    return list(clips.values())
