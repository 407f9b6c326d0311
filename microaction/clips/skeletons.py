"""The skeletons of labeled clips, by their location: what a network that sees keypoints is fed from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from microaction.clips.manifest import Clip
from microaction.skeletons import Skeleton, SkeletonError, read_skeletons


@dataclass(frozen=True)
class ClipSkeletons:
    """Skeletons in one array of bytes, which the processes of a node share in Ray's object store.

    `num_people`: the most that one of them has.
    """

    data: np.ndarray
    span_of: dict[str, tuple[int, int]] = field(repr=False)
    num_people: int

    @classmethod
    def read(cls, *lists: tuple[Sequence[Clip], str]) -> "ClipSkeletons":
        """Return the skeletons of the clips of each list, out of its table, which names them as the list does.

        Raises `SkeletonError` where a table lacks a clip or is none, and `FileNotFoundError`.
        """
        parts: list[bytes] = []
        span_of: dict[str, tuple[int, int]] = {}
        end = num_people = 0
        for clips, table in lists:
            location_of = {clip.name: clip.location for clip in clips}
            for name, skeleton in _read(table):
                if name not in location_of:
                    continue
                parts.append(skeleton.to_bytes())
                start, end = end, end + len(parts[-1])
                span_of[location_of[name]] = (start, end)
                num_people = max(num_people, len(skeleton.scores_MNK))
            missing = [clip.name for clip in clips if clip.location not in span_of]
            if missing:
                raise SkeletonError(
                    f"{table} has no skeleton of {len(missing)} of {len(clips)} clips, the first of which is {missing[0]}: it "
                    "must name them as the list does"
                )
            regions = [clip.name for clip in clips if clip.region is not None]
            if regions:
                raise SkeletonError(
                    f"{regions[0]} is listed with a region, but the network sees the square around the people of its "
                    "skeleton: leave the region out"
                )
        return cls(np.frombuffer(b"".join(parts), np.uint8), span_of, num_people)

    def packed(self, clip: Clip) -> bytes:
        """Return a clip's skeleton as `Skeleton.from_bytes` takes it."""
        start, end = self.span_of[clip.location]
        return self.data[start:end].tobytes()


def _read(table: str) -> Iterator[tuple[str, Skeleton]]:
    try:
        yield from read_skeletons(table)
    except FileNotFoundError:
        raise SkeletonError(f"no table of skeletons at {table}: `microaction skeletons import` makes one") from None
