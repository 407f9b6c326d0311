"""Which part of a clip's frames counts: its region, or where several people are seen, one of them.

The same for training, which cuts clips as it decodes them, and for packing, whose proxies are cut already.
"""

from microaction.errors import InvalidRegionError
from microaction.people.crops import crop_around
from microaction.people.scale import as_tracklet, look_at_clip, tallest
from microaction.preprocessing import PersonScale
from microaction.video import Region
from microaction.video.clip import ClipFrames
from microaction.video.decoding.sources import Source
from microaction.video.framing import Crop
from microaction.video.proxy import Proxy, encode_proxy


def part_of_clip(
    source: Source | ClipFrames, region: Region | None, person: int | None, scale: PersonScale
) -> Region | Crop | None:
    """Return the part of a clip's frames that counts, in pixels of displayed frames; None for whole frames.

    That is `region` if it is given. Otherwise, if several people are seen in the clip's middle frame, it is the crop of one of
    them in this scale: of number `person`, counted from 1 from left to right, or of the tallest; whoever is much smaller than
    the tallest does not count. Decodes in this process. Raises `DecodeError`, and `InvalidRegionError` if fewer people are
    seen than `person` says.
    """
    if region is not None:
        return region
    look = look_at_clip(source)
    people = look.participants
    if person is not None and person > len(people):
        raise InvalidRegionError(
            f"the list names person {person}, but the clip's middle frame shows {len(people)}: correct person, or give a region"
        )
    if len(people) < 2:
        return None
    chosen = tallest(people) if person is None else people[person - 1]
    neighbors = [other.box for other in people if other is not chosen]
    return crop_around(as_tracklet(chosen), neighbors, look.width, scale).crop


def encode_part(
    source: Source, short_side: int, person: int | None, scale: PersonScale
) -> tuple[Proxy, tuple[int, int, int, int] | None]:
    """Encode the part that counts of a clip without a region, as `encode_proxy` does.

    Returns the proxy, and left, top, width and height of the crop; None if the frames are whole. Raises what `part_of_clip`
    and `encode_proxy` raise.
    """
    part = part_of_clip(source, None, person, scale)
    proxy = encode_proxy(source, short_side, part)
    return proxy, None if part is None else (part.left, part.top, part.width, part.height)
