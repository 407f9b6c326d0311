"""The public tables: complete, switched in one step, cheap to read, and readable by all that reads Parquet."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from microaction.labeling import ledger, publication
from microaction.labeling.events import EventRule
from microaction.labeling.plan import chunk_table, plan_chunks
from microaction.labeling.publication import IncompleteLedgerError, Publication, PublicationSource, publish
from microaction.labeling.settings import VideoLabelSettings
from microaction.labeling.tables import AccountingError, DecisionRule, Provenance
from microaction.schema import CATALOG, COMMITTED_CHUNK, SCHEMA_VERSION
from microaction.taxonomy import ACTIONS
from tests.labeling.runs import copy_of

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]
S = 1_000_000
NUM_VIDEOS, VIDEO_S = 40, 30
RULE = EventRule(0.5, 0.4, 0, 0)


def catalog() -> pa.Table:
    rows = [
        {"video": f"v{i:03d}", "version": "1", "size_bytes": 9, "duration_s": float(VIDEO_S)} for i in range(NUM_VIDEOS)
    ]
    return pa.Table.from_pylist(rows, schema=CATALOG)


def commit_all(out: Path, plan: pa.Table, *, seed: int, num_repeated: int = 0) -> None:
    """Commit windows of all chunks of a plan; `num_repeated` of each belong to the next one."""
    rng = np.random.default_rng(seed)
    rows = []
    for chunk in chunk_table(plan, catalog()).to_pylist():
        end_us = min(chunk["chunk_end_us"] + num_repeated * S, (VIDEO_S - 2) * S + 1)
        starts = range(chunk["chunk_start_us"], end_us, S)
        logits_WK = rng.normal(0, 3, (len(starts), 52))
        probabilities_WK = np.exp(logits_WK) / np.exp(logits_WK).sum(axis=1, keepdims=True)
        rows.append(
            {name: value for name, value in chunk.items() if name in COMMITTED_CHUNK.names}
            | {
                "decoder": "none",
                "num_windows": len(starts),
                "window_start_us": list(starts),
                "window_end_us": [start + 2 * S for start in starts],
                "window_person": [0] * len(starts),
                "probabilities": probabilities_WK.ravel().tolist(),
                "window_run": [0] * len(probabilities_WK),
            }
        )
    for first in range(0, len(rows), 30):
        ledger.CHUNKS.commit(str(out), pa.Table.from_pylist(rows[first : first + 30], schema=COMMITTED_CHUNK))


def published(
    out: Path, plan: pa.Table, rule: DecisionRule | None = None, before_switch: Callable[[], None] = lambda: None
) -> Publication:
    source = PublicationSource(
        str(out),
        catalog(),
        plan,
        runs=(Provenance("model", "digest", "settings"),),
        rule=rule or DecisionRule(ACTIONS, RULE, 0.5),
        metadata={"microaction.schema_version": str(SCHEMA_VERSION)},
    )
    return publish(source, ledger.CHUNKS.read_index(str(out)), before_switch=before_switch)


def sql(query: str) -> pd.DataFrame:
    found = duckdb.sql(query)
    assert found is not None
    frame: pd.DataFrame = found.df()
    return frame


@pytest.fixture
def plan() -> pa.Table:
    return plan_chunks(catalog(), VideoLabelSettings(chunk_s=10), "model", "settings")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publication, "WINDOWS_PER_PART", 200)


@pytest.fixture(scope="module")
def read_only(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of 40 videos of 30 s, published in several parts."""
    out, plan = (
        tmp_path_factory.mktemp("published"),
        plan_chunks(catalog(), VideoLabelSettings(chunk_s=10), "model", "settings"),
    )
    commit_all(out, plan, seed=0)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(publication, "WINDOWS_PER_PART", 200)
        published(out, plan)
    return out


@pytest.fixture
def out(read_only: Path, tmp_path: Path) -> Path:
    """A copy of `read_only` to publish into."""
    return copy_of(read_only, tmp_path)


def test_pandas_duckdb_and_pyarrow_read_the_tables(read_only: Path) -> None:
    out = read_only
    for name in ("windows", "events", "videos", "failures"):
        by_pandas = pd.read_parquet(f"{out}/{name}")
        by_duckdb = sql(f"SELECT * FROM '{out}/{name}/*.parquet'")
        by_pyarrow = pads.dataset(f"{out}/{name}").to_table().to_pandas()
        assert len(by_pandas) == len(by_duckdb) == len(by_pyarrow)
        assert list(by_pandas) == list(by_duckdb) == list(by_pyarrow)
        assert (len(by_pandas) > 0) == (name != "failures")
        for column in ("action", "video", "start_s"):
            if column in by_pandas:
                assert by_pandas[column].tolist() == by_duckdb[column].tolist() == by_pyarrow[column].tolist()
    assert len(list((out / "windows").iterdir())) > 3, "with one part this would prove little"
    actions = sql(f"SELECT unnest(actions, recursive := true) FROM '{out}/videos/*.parquet'")
    events = pd.read_parquet(out / "events")
    assert actions["total_s"].sum() == pytest.approx((events["end_s"] - events["start_s"]).sum())


def test_every_window_occurs_once_and_covers_every_second(read_only: Path) -> None:
    windows = pd.read_parquet(read_only / "windows")
    assert len(windows) == NUM_VIDEOS * (VIDEO_S - 1)
    assert not windows.duplicated(["video", "start_s"]).any()
    videos = pd.read_parquet(read_only / "videos")
    assert (videos["coverage"] == 1).all()
    assert (videos["covered_s"] == VIDEO_S).all()


def test_one_video_or_one_action_is_a_cheap_read(read_only: Path) -> None:
    """Readers skip row groups whose statistics exclude the rows."""
    out = read_only

    def row_groups(table: str, condition: pads.Expression) -> tuple[int, int]:
        fragments = list(pads.dataset(out / table).get_fragments())
        touched = sum(len(fragment.subset(condition).row_groups) for fragment in fragments)
        return touched, sum(fragment.num_row_groups for fragment in fragments)

    touched, groups = row_groups("windows", pads.field("video") == "v017")
    assert touched == 1 < groups
    touched, groups = row_groups("events", pads.field("action_id") == 9)
    assert touched <= len(list((out / "events").iterdir())) < groups / 10
    for path in (out / "events").iterdir():
        statistics = [
            pq.ParquetFile(path).metadata.row_group(i).column(2).statistics
            for i in range(pq.ParquetFile(path).metadata.num_row_groups)
        ]
        assert all(each.min == each.max for each in statistics), "a row group holds one action"


def test_files_name_their_schema_version(read_only: Path) -> None:
    schema = pq.read_schema(next((read_only / "windows").iterdir()))
    assert schema.metadata[b"microaction.schema_version"] == str(SCHEMA_VERSION).encode()
    assert pa.types.is_dictionary(schema.field("action").type)


def test_unchanged_tables_are_not_written_again(out: Path, plan: pa.Table) -> None:
    before = json.loads((out / "_publication.json").read_text())
    assert published(out, plan).version == before["totals"]["version"]
    changed = published(out, plan, rule=DecisionRule(ACTIONS, EventRule(0.9, 0.4, 0, 0), 0.5))
    assert changed.version != before["totals"]["version"]
    assert changed.num_events < before["totals"]["num_events"]


def test_a_missing_chunk_leaves_the_old_tables(out: Path, plan: pa.Table) -> None:
    before = pd.read_parquet(out / "videos")
    other = plan_chunks(catalog(), VideoLabelSettings(chunk_s=10), "other model", "settings")
    with pytest.raises(IncompleteLedgerError, match=r"120 chunks are missing in .*: run the same command again"):
        published(out, other)
    pd.testing.assert_frame_equal(pd.read_parquet(out / "videos"), before)


def test_a_window_that_occurs_twice_leaves_the_old_tables(out: Path, plan: pa.Table) -> None:
    before = pd.read_parquet(out / "videos")
    other = plan_chunks(catalog(), VideoLabelSettings(chunk_s=10), "other model", "settings")
    commit_all(out, other, seed=1, num_repeated=1)
    with pytest.raises(AccountingError, match=r"windows of v\d+ occur twice, or out of order; nothing was published"):
        published(out, other)
    pd.testing.assert_frame_equal(pd.read_parquet(out / "videos"), before)


def test_a_refused_switch_leaves_the_old_tables(out: Path, plan: pa.Table) -> None:
    before = (out / "windows").resolve()

    def refuse() -> None:
        raise RuntimeError("lease lost")

    with pytest.raises(RuntimeError, match="lease lost"):
        published(out, plan, rule=DecisionRule(ACTIONS, RULE, 0.9), before_switch=refuse)
    assert (out / "windows").resolve() == before
    published(out, plan, rule=DecisionRule(ACTIONS, RULE, 0.9))
    folders = {path.name for path in (out / "tables").iterdir()}
    assert folders == {"current", before.parent.name, (out / "windows").resolve().parent.name}, (
        "the abandoned version is deleted"
    )


def test_readers_never_see_a_mixture_of_two_publications(out: Path, plan: pa.Table) -> None:
    """One reader reads in a loop while the tables change between two thresholds."""
    rules = [DecisionRule(ACTIONS, EventRule(threshold, 0.1, 0, 0), threshold) for threshold in (0.2, 0.8)]
    expected = {published(out, plan, rule=rule).num_events for rule in rules}
    assert len(expected) == 2
    seen: list[tuple[int, int, int]] = []
    disturbed: list[Exception] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                events = pd.read_parquet(f"{out}/events", columns=["video"])
                folder = (out / "windows").resolve().parent
                windows = pd.read_parquet(folder / "windows", columns=["abstained"])
                of_one = len(pd.read_parquet(folder / "events", columns=["video"]))
                seen.append((len(events), of_one, int(windows["abstained"].sum())))
            except FileNotFoundError as error:
                disturbed.append(error)
            except pa.ArrowInvalid as error:
                # Arrow leaves out files that are gone when it comes to look at them: a folder without files has no columns.
                if "No match for FieldRef" not in str(error):
                    raise
                disturbed.append(error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    for _ in range(4):
        for rule in rules:
            published(out, plan, rule=rule)
            num_reads = len(seen) + 2  # the second of them began after the switch
            while len(seen) < num_reads:
                assert reader.is_alive(), "the reader failed"
                time.sleep(0.01)
    stop.set()
    reader.join()
    assert {each[0] for each in seen} == expected
    assert len({each[1:] for each in seen}) == 2, "events and windows of one folder belong together"
    # A read that lists files before a switch and opens them after it fails: at most one per switch.
    assert len(disturbed) <= len(seen), f"{len(disturbed)} reads failed, {len(seen)} succeeded"
