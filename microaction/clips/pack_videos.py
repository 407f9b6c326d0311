"""Packs videos with the actions in them: each is encoded once, whole, and its instances are listed on its proxy's timeline."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from microaction.clips.instances import AnnotatedVideo, Instance
from microaction.clips.manifest import Clip
from microaction.clips.rows import ManifestError
from microaction.clips.settings import PackSettings
from microaction.schema import INSTANCE_LIST, REGION_COLUMNS
from microaction.taxonomy import ACTIONS

TIME_DECIMALS = 6  # of seconds that are moved to a proxy's timeline


def as_whole(videos: Sequence[AnnotatedVideo], settings: PackSettings) -> list[Clip]:
    """Return the videos as clips without a label, each with the region, or with `people` auto the person, of its instances.

    Raises `ManifestError` for a video whose instances differ in that: a proxy shows one part of the frames.
    """
    clips = []
    for video in videos:
        regions = {instance.region for instance in video.instances}
        if len(regions) > 1:
            raise ManifestError(
                f"{settings.clips_list}: the instances of {video.name} have different regions, but its proxy shows one: leave "
                "the regions out"
            )
        people = {instance.person for instance in video.instances}
        if settings.people == "auto" and len(people) > 1 and regions == {None}:
            raise ManifestError(
                f"{settings.clips_list}: the instances of {video.name} are of different people, but its proxy would show one: "
                "pack with people off, and train with people auto"
            )
        person = people.pop() if settings.people == "auto" else None
        clips.append(Clip(video.name, video.uri, 0, regions.pop(), video.subject, person))
    return clips


def instances_of_proxies(
    videos: Sequence[AnnotatedVideo], rows: Sequence[dict[str, Any]]
) -> tuple[pa.Table, list[str]]:
    """Return the instances of the proxies in these rows of the manifest, and a line for each video that lost some.

    Times are those of the proxies, which begin with the source's video track. What ends before that shows nothing.
    """
    proxy_of = {row["name"]: row for row in rows if row["error"] is None}
    listed: list[dict[str, Any]] = []
    notices = []
    for video in videos:
        row = proxy_of.get(video.name)
        if row is None:
            continue
        shown = [instance for instance in video.instances if instance.end_s > row["video_start_s"]]
        if len(shown) < len(video.instances):
            notices.append(
                f"{video.uri}: {len(video.instances) - len(shown)} of {len(video.instances)} instances are left out: they end "
                f"before the video track begins, at {row['video_start_s']:.3f} s"
            )
        listed += [_listed(video, instance, row) for instance in shown]
    return pa.Table.from_pylist(listed, schema=INSTANCE_LIST), notices


def _listed(video: AnnotatedVideo, instance: Instance, row: dict[str, Any]) -> dict[str, Any]:
    return {
        "video": row["proxy"],
        "start_s": _moved(instance.start_s, row),
        "end_s": _moved(instance.end_s, row),
        "action": ACTIONS[instance.action_id],
        "action_id": instance.action_id,
        "person": instance.person,
        "subject": video.subject,
        **region_of_proxy(row),
    }


def _moved(time_s: float, row: dict[str, Any]) -> float:
    """Return a time on the proxy's timeline."""
    start_s = row["video_start_s"]
    return max(round(time_s - start_s, TIME_DECIMALS), 0.0) if start_s else time_s


def region_of_proxy(row: dict[str, Any]) -> dict[str, int]:
    """Return the columns of the region of a proxy that shows what counts: all of it, so that nobody cuts it again."""
    is_decided = row["person_scale"] is not None or row[REGION_COLUMNS[0]] is not None
    return dict(zip(REGION_COLUMNS, (0, 0, row["width"], row["height"]), strict=True)) if is_decided else {}
