from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from microaction.labeling.decoder import Decoder
from microaction.labeling.plan import (
    BLOCK_MAX_CHUNKS,
    chunk_table,
    plan_blocks,
    plan_chunks,
    plan_looks,
)
from microaction.labeling.settings import VideoLabelSettings
from microaction.preprocessing import Preprocessing
from microaction.schema import CATALOG, CHUNK, PLAN, REGION_COLUMNS, VIDEO_PEOPLE
from microaction.video import FrameSampling
from microaction.video.sandbox import Limits
from microaction.video.windows import Span, WindowGrid, microseconds, split_windows

S = 1_000_000


def catalog(*durations_s: float | None) -> pa.Table:
    rows = [
        {"video": f"v{i}", "version": "1", "size_bytes": 9, "duration_s": d, "error": None if d else "decode_error"}
        for i, d in enumerate(durations_s)
    ]
    return pa.Table.from_pylist(rows, schema=CATALOG)


def plan(*durations_s: float | None) -> pa.Table:
    return plan_chunks(catalog(*durations_s), VideoLabelSettings(), "model", "settings")


def test_readable_videos_are_cut_into_chunks() -> None:
    videos = catalog(250.5, None, 2.0)
    chunks = plan_chunks(videos, VideoLabelSettings(), "model", "settings")
    assert chunks.schema == PLAN
    spans = [(row["video_row"], row["chunk_start_us"], row["chunk_end_us"]) for row in chunks.to_pylist()]
    assert spans == [(0, 0, 120 * S), (0, 120 * S, 240 * S), (0, 240 * S, 250_500_000), (2, 0, 2 * S)]
    rows = chunk_table(chunks, videos)
    assert rows.schema == CHUNK
    assert [(row["video"], row["duration_us"]) for row in rows.to_pylist()] == [("v0", 250_500_000)] * 3 + [
        ("v2", 2 * S)
    ]
    assert len(set(chunks["chunk_id"].to_pylist())) == len(chunks)


@given(
    st.lists(st.one_of(st.none(), st.integers(1, 500).map(lambda tenths: tenths / 10)), min_size=1, max_size=5),
    st.sampled_from([(2.0, 1.0), (2.0, 2.0), (1.5, 0.7)]),
    st.sampled_from([2.3, 7.0, 120.0]),
)
def test_window_counts_equal_the_windows(
    durations: list[float | None], grid: tuple[float, float], chunk_s: float
) -> None:
    settings = VideoLabelSettings(window_s=grid[0], stride_s=grid[1], chunk_s=chunk_s)
    videos = catalog(*durations)
    chunks = plan_chunks(videos, settings, "model", "settings")
    expected = [
        len(
            split_windows(
                row["duration_us"],
                microseconds(grid[0]),
                microseconds(grid[1]),
                Span(row["chunk_start_us"], row["chunk_end_us"]),
            )
        )
        for row in chunk_table(chunks, videos).to_pylist()
    ]
    assert chunks["num_windows"].to_pylist() == expected


def test_ids_identify_everything_that_decides_the_result() -> None:
    base: dict[str, Any] = {"video": "v", "version": "1", "duration_s": 10.0} | dict.fromkeys(REGION_COLUMNS)

    def ids(chunk_s: float = 10.0, model: str = "m", settings: str = "s", **changes: object) -> list[str]:
        videos = pa.Table.from_pylist([{"size_bytes": 9} | base | changes], schema=CATALOG)
        found: list[str] = plan_chunks(videos, VideoLabelSettings(chunk_s=chunk_s), model, settings)[
            "chunk_id"
        ].to_pylist()
        return found

    region = dict(zip(REGION_COLUMNS, (0, 0, 9, 9), strict=True))
    others = [
        *(ids(video="x"), ids(version="x"), ids(model="x"), ids(settings="x"), ids(**region)),  # type: ignore[arg-type]
        *(ids(duration_s=7.0), ids(chunk_s=3.0)),
    ]
    assert len({tuple(each) for each in others}) == len(others)
    assert ids() == ids()
    assert not set(ids()) & {each for other in others for each in other}, "other work has other ids"
    assert ids(size_bytes=8) == ids(), "the size does not decide the result"


def test_blocks_keep_the_plans_order_and_group_short_clips() -> None:
    chunks = plan(*[2.0] * 200, 500.0, *[30.0] * 5)
    blocks = plan_blocks(chunks)
    assert [row for block in blocks for row in block] == list(range(len(chunks)))
    assert max(len(block) for block in blocks) <= BLOCK_MAX_CHUNKS
    assert [len(block) for block in blocks] == [60, 60, 60, 20, 1, 1, 1, 1, 4, 2]
    for block in blocks:
        rows = chunks.slice(block.start, len(block)).to_pylist()
        total = sum(row["chunk_end_us"] - row["chunk_start_us"] for row in rows)
        assert total <= 120 * S or len(rows) == 1


def test_an_empty_plan_has_no_blocks() -> None:
    assert plan_blocks(plan()) == []


def people_table(*spans: tuple[int, int, int], video: str = "v0") -> pa.Table:
    """Return people (number, start, end in tenths of a second) of a video, each with a crop of its own."""
    rows = [
        {"person": person, "start_us": start * S // 10, "end_us": end * S // 10, "left": person, "top": 0}
        | {"width": 50, "height": 60, "shot": 0}
        for person, start, end in spans
    ]
    row = {"video": video, "key": "k", "num_shots": 1, "spans": rows, "problems": []}
    return pa.Table.from_pylist([row], schema=VIDEO_PEOPLE)


def windows_of(rows: pa.Table, settings: VideoLabelSettings) -> list[list[tuple[int, Span]]]:
    """Return the windows (person, span) that the decode stage makes of each chunk."""
    decoder = Decoder(
        WindowGrid(microseconds(settings.window_s), microseconds(settings.stride_s)),
        FrameSampling(8),
        Preprocessing(),
        Limits(),
        microseconds(settings.chunk_s),
        None,
    )
    return [
        [
            (window.person, window.span)
            for window in decoder._windows(row, Span(row["chunk_start_us"], row["chunk_end_us"]))
        ]
        for row in rows.to_pylist()
    ]


@given(
    st.lists(st.tuples(st.integers(0, 290), st.integers(1, 120)), min_size=1, max_size=4),
    st.sampled_from([(2.0, 1.0), (2.0, 2.0), (1.5, 0.7)]),
    st.sampled_from([2.3, 7.0, 120.0]),
)
def test_windows_of_people_are_laid_over_their_spans(
    spans: list[tuple[int, int]], grid: tuple[float, float], chunk_s: float
) -> None:
    settings = VideoLabelSettings(window_s=grid[0], stride_s=grid[1], chunk_s=chunk_s)
    videos = catalog(41.0)
    people = people_table(*((number, start, start + length) for number, (start, length) in enumerate(spans, start=1)))
    chunks = plan_chunks(videos, settings, "model", "settings", people)
    assert chunks.schema == PLAN
    by_chunk = windows_of(chunk_table(chunks, videos), settings)
    assert chunks["num_windows"].to_pylist() == [len(windows) for windows in by_chunk]
    assert all(by_chunk), "a chunk without windows is no work"
    found = sorted(window for windows in by_chunk for window in windows)
    expected = [
        (number, Span(start * S // 10 + window.start_us, start * S // 10 + window.end_us))
        for number, (start, length) in enumerate(spans, start=1)
        for window in split_windows(length * S // 10, microseconds(grid[0]), microseconds(grid[1]))
    ]
    assert found == sorted(expected), "each span is like a little video, however it is cut into chunks"


def test_only_the_chunks_that_a_change_reaches_are_new_work() -> None:
    videos, settings = catalog(100.0), VideoLabelSettings(chunk_s=10)

    def ids(*spans: tuple[int, int, int]) -> dict[int, str]:
        plan = plan_chunks(videos, settings, "model", "settings", people_table(*spans))
        return dict(zip(plan["chunk_start_us"].to_pylist(), plan["chunk_id"].to_pylist(), strict=True))

    both = ids((1, 0, 1000), (2, 0, 500))
    assert ids((1, 0, 1000), (2, 0, 500)) == both
    shorter = ids((1, 0, 1000), (2, 0, 300))
    new = {start // S for start, chunk_id in shorter.items() if chunk_id not in both.values()}
    assert {30, 40} <= new <= {20, 25, 30, 40}, "the windows until the end, which is moved, and those after it"
    alone = ids((1, 0, 1000))
    assert {start // S for start, chunk_id in alone.items() if chunk_id not in both.values()} == {0, 10, 20, 30, 40}


def test_chunks_of_many_people_are_shorter() -> None:
    """So that their frames need about as much memory as those of one person."""
    videos, settings = catalog(240.0), VideoLabelSettings()
    sizes = {}
    for num_people in (1, 2, 3, 12):
        people = people_table(*((number, 0, 2400) for number in range(1, num_people + 1)))
        chunks = plan_chunks(videos, settings, "model", "settings", people)
        sizes[num_people] = max(chunks["num_windows"].to_pylist())
        assert sum(chunks["num_windows"].to_pylist()) == 239 * num_people
    assert sizes[1] == 120
    assert max(sizes.values()) <= 156


def test_regions_and_people_share_an_archive() -> None:
    """A video with a region is labeled as one, whatever is seen in it."""
    videos = catalog(9.0, 9.0)
    region = {name: pa.array([None, 5], pa.int32()) for name in REGION_COLUMNS}
    for name, column in region.items():
        videos = videos.set_column(videos.schema.get_field_index(name), CATALOG.field(name), column)
    assert plan_looks(videos, 600 * S, "looks")["video_row"].to_pylist() == [0]
    plan = plan_chunks(videos, VideoLabelSettings(), "model", "settings", people_table((1, 0, 90), (2, 0, 90)))
    assert [row["crops"] is None for row in plan.to_pylist()] == [False, True]
    assert plan["num_windows"].to_pylist() == [16, 8]
