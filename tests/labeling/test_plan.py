from typing import Any

import pyarrow as pa

from microaction.labeling.plan import BLOCK_MAX_CHUNKS, chunk_id, plan_blocks, plan_chunks
from microaction.schema import CATALOG, CHUNK
from microaction.video.windows import Span

S = 1_000_000


def catalog(*durations_s: float | None) -> pa.Table:
    rows = [
        {"video": f"v{i}", "version": "1", "size_bytes": 9, "duration_s": d, "error": None if d else "DecodeError"}
        for i, d in enumerate(durations_s)
    ]
    return pa.Table.from_pylist(rows, schema=CATALOG)


def plan(*durations_s: float | None) -> pa.Table:
    return plan_chunks(catalog(*durations_s), 120 * S, "model", "settings")


def test_readable_videos_are_cut_and_others_left_out() -> None:
    chunks = plan(250.5, None, 2.0)
    assert chunks.schema == CHUNK
    spans = [(row["video"], row["chunk_start_us"], row["chunk_end_us"]) for row in chunks.to_pylist()]
    assert spans == [
        ("v0", 0, 120 * S),
        ("v0", 120 * S, 240 * S),
        ("v0", 240 * S, 250_500_000),
        ("v2", 0, 2 * S),
    ]


def test_an_id_changes_with_everything_that_decides_the_result() -> None:
    base: dict[str, Any] = {"video": "v", "version": "1", "model_digest": "m", "settings_digest": "s"}
    base |= {"span": Span(0, 10), "region": [None] * 4}
    changes = dict.fromkeys(("video", "version", "model_digest", "settings_digest"), "x")
    others: list[dict[str, Any]] = [{name: value} for name, value in changes.items()]
    others += [{"span": Span(7, 10)}, {"span": Span(0, 7)}, {"region": [0, 0, 9, 9]}]
    ids = {chunk_id(**base | other) for other in others}
    assert len(ids) == 7
    assert chunk_id(**base) not in ids
    assert chunk_id(**base) == chunk_id(**base)


def test_blocks_hold_the_plan_in_order_and_share_short_clips() -> None:
    chunks = plan(*[2.0] * 200, 500.0, *[30.0] * 5)
    blocks = plan_blocks(chunks)
    assert pa.concat_tables(blocks).equals(chunks)
    assert max(len(block) for block in blocks) <= BLOCK_MAX_CHUNKS
    assert [len(block) for block in blocks] == [60, 60, 60, 20, 1, 1, 1, 1, 4, 2]
    for block in blocks:
        rows = block.to_pylist()
        total = sum(row["chunk_end_us"] - row["chunk_start_us"] for row in rows)
        assert total <= 120 * S or len(rows) == 1


def test_no_work_is_no_block() -> None:
    assert plan_blocks(plan()) == []
