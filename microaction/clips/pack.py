"""Packs clips: a list of clips in; their proxies, a list of the proxies and a manifest out. Of a list of spans, whole videos.

clips − packed before → encode (CPU tasks, 1:1) → a page of the manifest for each block → manifest and lists
"""

import hashlib
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import ray.data
from pyarrow import fs as pafs
from ray.data import TaskPoolStrategy

from microaction import storage
from microaction.clips.instances import AnnotatedVideo, read_instances
from microaction.clips.manifest import Clip, is_span_list, read_list, refuse_named_people
from microaction.clips.pack_videos import as_whole, instances_of_proxies, region_of_proxy
from microaction.clips.rows import ManifestError, region_of
from microaction.clips.settings import PackSettings
from microaction.errors import DecodeError, FailureKind, MicroactionError, reason_of
from microaction.preprocessing import PersonScale
from microaction.schema import CLIP_LIST, CROP_COLUMNS, PACKED_CLIP, REGION_COLUMNS, parquet_bytes
from microaction.video.proxy import Proxy, encode_proxy
from microaction.video.sandbox import Limits, sandboxed

ELSEWHERE_FOLDER = "_elsewhere"
VIDEOS_FOLDER, PAGES_FOLDER = "videos", "_pages"
MANIFEST_FILE, LIST_FILE, TABLE_FILE = "manifest.parquet", "list.txt", "list.parquet"
INSTANCES_FILE = "instances.parquet"
CLIPS_PER_BLOCK = 8  # about a second of work: the maximum that a lost task loses
PACK_LIMITS = Limits(time_s=600)
VIDEO_LIMITS = Limits(time_s=4 * 3600, memory_bytes=16 << 30)  # a proxy of an hour is 1 to 2 GB, and is made in memory


@dataclass(frozen=True)
class PackResult:
    """The result of packing; `num_cut` counts the proxies that show one of several people, and `failures` are rows of the
    manifest without a proxy. Of a list of spans, `num_clips` counts videos, `num_instances` what is listed of them, and `notices`
    say what is not."""

    num_clips: int
    num_packed_before: int
    num_cut: int
    num_bytes: int
    lowest_psnr_db: float
    failures: list[dict[str, Any]]
    num_instances: int | None = None
    notices: tuple[str, ...] = ()


def pack_clips(
    settings: PackSettings, *, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> PackResult:
    """Encode the proxies that `settings.out` lacks, and write its lists and its manifest.

    Of a list of spans, each video is encoded once, whole, and its instances are listed on the timeline of its proxy. A clip or
    video is packed again if its file or the settings have changed; one that could not be read is retried.
    `on_progress(done, total)` is called as they are done. Raises `ManifestError` for a list that cannot be read. Needs a running
    Ray.
    """
    videos = _read_videos(settings)
    clips = _read_clips(settings) if videos is None else as_whole(videos, settings)
    versions = _versions([clip.uri for clip in clips], settings.videos)
    rows = {
        clip.name: {
            "name": clip.name,
            "label": clip.label if videos is None else None,
            "source": clip.uri,
            "source_version": versions.get(clip.uri),
            "proxy": proxy_name(clip.name),
            "short_side": settings.short_side,
            **dict(zip(REGION_COLUMNS, clip.region or (None,) * 4, strict=True)),
            **_whom_to_cut_to(clip, settings),
        }
        for clip in clips
    }
    storage.check_writable(storage.join(settings.out, MANIFEST_FILE))
    before = {name: page for name, page in _read_pages(settings.out).items() if _is_same_work(rows.get(name), page)}
    done = len(before)
    on_progress(done, len(clips))
    pages: dict[str, dict[str, Any]] = {}
    for page in _encode([row for name, row in rows.items() if name not in before], settings.out):
        pages |= {row["name"]: row for row in page}
        done += len(page)
        on_progress(done, len(clips))
    # The label is that of the present list; it may have been corrected.
    manifest = [(before | pages)[clip.name] | {"label": rows[clip.name]["label"]} for clip in clips]
    _write_table(pa.Table.from_pylist(manifest, schema=PACKED_CLIP), settings.out, MANIFEST_FILE)
    num_instances, notices = None, list[str]()
    if videos is None:
        _write_lists(manifest, {clip.name: clip.subject for clip in clips}, settings.out)
    else:
        instances, notices = instances_of_proxies(videos, manifest)
        _write_table(instances, settings.out, INSTANCES_FILE)
        num_instances = len(instances)
    good = [row for row in manifest if row["error"] is None]
    return PackResult(
        len(clips),
        len(before),
        sum(row["crop_left"] is not None for row in good),
        sum(row["size_bytes"] for row in good),
        min((row["psnr_db"] for row in good), default=float("nan")),
        [row for row in manifest if row["error"] is not None],
        num_instances,
        tuple(notices),
    )


def _read_videos(settings: PackSettings) -> list[AnnotatedVideo] | None:
    """Return the videos of a list of spans; None for a list of clips."""
    try:
        is_of_spans = is_span_list(storage.read_bytes(settings.clips_list))
    except FileNotFoundError:
        return None  # reading clips says so
    return read_instances(settings.clips_list, settings.videos) if is_of_spans else None


def _read_clips(settings: PackSettings) -> list[Clip]:
    clips = read_list(settings.clips_list, settings.videos, num_classes=None)
    if settings.people == "off":
        refuse_named_people(clips)
    span = next((clip.name for clip in clips if clip.span is not None), None)
    if span is not None:
        raise ManifestError(
            f"{settings.clips_list} names {span}, a span of a video, but whole videos are packed: list spans in a Parquet table "
            "with video, start_s, end_s and action"
        )
    return clips


def _versions(uris: list[str], videos: str) -> dict[str, str]:
    """Return the versions of the files that exist, from one listing of the folder of videos and a request for each other."""
    versions: dict[str, str] = {}
    with suppress(FileNotFoundError):
        versions = {file.uri: file.version for file in storage.list_files(videos)}
    for uri in uris:
        if uri not in versions and not uri.startswith(f"{storage.absolute(videos)}/"):
            with suppress(FileNotFoundError):
                versions[uri] = storage.version_of(uri)
    return versions


def _whom_to_cut_to(clip: Clip, settings: PackSettings) -> dict[str, Any]:
    """Return the columns person and person_scale: null where nobody is looked for, because of a region or by the settings."""
    if settings.people == "off" or clip.region is not None:
        return {"person": None, "person_scale": None}
    return {"person": clip.person, "person_scale": settings.person.model_dump_json()}


def proxy_name(name: str) -> str:
    """Return the proxy's name: `a/b.mp4` stays, `a/b.avi` becomes `a/b.avi.mp4`, so that no two clips share a proxy.

    A clip that is not below the folder of videos gets a folder of its own there.
    """
    if name.startswith(("/", "../")) or "://" in name:
        folder, _, base = name.rpartition("/")
        name = f"{ELSEWHERE_FOLDER}/{hashlib.sha256(folder.encode()).hexdigest()[:16]}/{base}"
    return name if name.endswith(".mp4") else f"{name}.mp4"


def _is_same_work(row: dict[str, Any] | None, page: dict[str, Any]) -> bool:
    keys = ("source", "source_version", "short_side", "proxy", *REGION_COLUMNS, "person", "person_scale")
    if row is None or page["error"] is not None or (row["label"] is None and page["video_start_s"] is None):
        return False  # pages of earlier versions do not say when the track starts, which times of instances depend on
    return all(row[key] == page[key] for key in keys)


def _encode(rows: list[dict[str, Any]], out: str) -> Iterator[list[dict[str, Any]]]:
    if not rows:
        return
    table = pa.Table.from_pylist(rows, schema=pa.schema([PACKED_CLIP.field(name) for name in rows[0]]))
    size = 1 if rows[0]["label"] is None else CLIPS_PER_BLOCK  # videos may be long
    blocks = [table.slice(start, size) for start in range(0, len(table), size)]
    dataset = ray.data.from_arrow(blocks)
    dataset.context.enable_progress_bars = False
    dataset.context.raise_original_map_exception = True  # a store's refusal keeps its message
    encoded = dataset.map_batches(
        _encode_block,
        batch_size=None,
        batch_format="pyarrow",
        fn_args=(out,),
        compute=TaskPoolStrategy(),
    )
    for page in encoded.iter_batches(batch_size=None, batch_format="pyarrow"):
        yield page.to_pylist()


def _encode_block(block: pa.Table, out: str) -> pa.Table:
    page = pa.Table.from_pylist([packed_row(row, out) for row in block.to_pylist()], schema=PACKED_CLIP)
    name = f"t{time.time_ns():020d}-{uuid.uuid4().hex}.parquet"  # later pages come last: their proxies are those that are there
    storage.write_bytes(storage.join(out, PAGES_FOLDER, name), parquet_bytes(page))
    return page


def packed_row(row: dict[str, Any], out: str) -> dict[str, Any]:
    """Encode and store one proxy; return its row of the manifest, with the reason if there is none."""
    try:
        if row["source_version"] is None:
            raise DecodeError(row["source"], "no such file, though the list names it")
        proxy, crop = _encoded(row)
    except (RuntimeError, ValueError, MicroactionError) as error:
        return row | {"error": str(FailureKind.of(error)), "reason": reason_of(error)}
    storage.write_bytes(storage.join(out, VIDEOS_FOLDER, row["proxy"]), proxy.data)
    return row | {
        **dict(zip(CROP_COLUMNS, crop or (None,) * 4, strict=True)),
        "num_frames": proxy.num_frames,
        "width": proxy.width,
        "height": proxy.height,
        "size_bytes": len(proxy.data),
        "psnr_db": proxy.psnr_db,
        "video_start_s": proxy.video_start_s,
    }


def _encoded(row: dict[str, Any]) -> tuple[Proxy, tuple[int, int, int, int] | None]:
    """Return the proxy of a row, and the crop of the person that it is cut to, if it is."""
    source, short_side = row["source"], row["short_side"]
    limits = VIDEO_LIMITS if row["label"] is None else PACK_LIMITS
    if row["person_scale"] is None:
        return sandboxed(source, limits, encode_proxy, source, short_side, region_of(row)), None
    from microaction.clips.people import encode_part  # slow, and rarely needed

    scale = PersonScale.model_validate_json(row["person_scale"])
    return sandboxed(source, limits, encode_part, source, short_side, row["person"], scale)


def _read_pages(out: str) -> dict[str, dict[str, Any]]:
    """Return the rows that earlier runs wrote, by name: the latest ones; a success overrides a failure."""
    filesystem, path = storage.open_filesystem(storage.join(out, PAGES_FOLDER))
    infos = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    files = sorted(info.path for info in infos if info.path.endswith(".parquet"))
    if not files:
        return {}
    pages = pads.dataset(files, schema=PACKED_CLIP, format="parquet", filesystem=filesystem).to_table()
    succeeded = pages.filter(pc.is_null(pages["error"]))
    return {row["name"]: row for table in (pages, succeeded) for row in table.to_pylist()}


def _write_lists(rows: list[dict[str, Any]], subjects: dict[str, str | None], out: str) -> None:
    """Write the list of proxies twice: in MA-52's format, and as a table with subjects, which names may
    lack, and with the whole frame as the region of proxies that show what counts, so that nobody cuts them again."""
    good = [row for row in rows if row["error"] is None]
    listed = [
        {"name": row["proxy"], "label": row["label"], "subject": subjects[row["name"]], **region_of_proxy(row)}
        for row in good
    ]
    _write_table(pa.Table.from_pylist(listed, schema=CLIP_LIST), out, TABLE_FILE)
    lines = (f"{row['proxy']} {row['label']}\n" for row in good)
    storage.write_bytes(storage.join(out, LIST_FILE), "".join(lines).encode())


def _write_table(table: pa.Table, out: str, name: str) -> None:
    storage.write_bytes(storage.join(out, name), parquet_bytes(table))
