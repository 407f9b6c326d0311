"""URIs work as paths do, against a real S3 server; skipped by name where Ceph is not installed."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import numpy as np
import pandas as pd
import pyarrow.dataset as pads
import pytest

from microaction import storage
from microaction.video import decode_chunk, decode_frames, probe
from microaction.video.windows import MICROSECONDS, Span, split_windows
from tests.archives import BAD, GOOD
from tests.benchmarks.videos import write_long_video
from tests.ceph import Ceph, S3Server
from tests.proxy import counting_proxy
from tests.videos import number_of

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    if not Ceph.is_installed():
        pytest.skip("Ceph is not installed: apt-get install ceph-mon ceph-osd ceph-common radosgw")
    ceph = Ceph(tmp_path_factory.mktemp("ceph"))
    try:
        server = ceph.start()
        old = {name: os.environ.get(name) for name in server.environment}
        os.environ.update(server.environment)
        boto3.client("s3").create_bucket(Bucket="interviews")
        boto3.client("s3").create_bucket(Bucket="results")
        yield server
        for name, value in old.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
    finally:
        ceph.stop()


@pytest.mark.usefixtures("s3")
def test_bytes_and_listings_come_back() -> None:
    storage.write_bytes("s3://results/folder/a", b"data")
    storage.write_bytes("s3://results/folder.other", b"not below the folder")
    assert storage.read_bytes("s3://results/folder/a") == b"data"
    assert storage.exists("s3://results/folder/a")
    assert not storage.exists("s3://results/folder/b")
    (file,) = storage.list_files("s3://results/folder")
    assert (file.uri, file.size_bytes) == ("s3://results/folder/a", 4)
    storage.write_bytes("s3://results/folder/a", b"DATA")
    (changed,) = storage.list_files("s3://results/folder/")
    assert changed.version != file.version
    assert not storage.create("s3://results/folder/a", b"other")
    assert storage.create("s3://results/folder/deep/b", b"data")
    assert storage.list_folders("s3://results/folder") == ["deep"]
    storage.delete_tree("s3://results/folder")
    with pytest.raises(FileNotFoundError, match="no files below s3://results/folder: check"):
        list(storage.list_files("s3://results/folder"))
    with pytest.raises(FileNotFoundError, match="no bucket 'absent'"):
        list(storage.list_files("s3://absent/x"))


@pytest.mark.usefixtures("s3")
def test_a_video_is_read_from_its_uri(counted_video: Path) -> None:
    storage.write_bytes("s3://interviews/one/counted.mp4", counted_video.read_bytes())
    uri = "s3://interviews/one/counted.mp4"
    assert probe(uri) == probe(counted_video)
    assert [number_of(frame) for frame in decode_frames(uri, [60, 3])] == [60, 3]


def test_a_minute_of_an_hour_costs_a_minutes_bytes_and_few_requests(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "hour.mp4"
    write_long_video(path, duration_s=3600, size=(960, 540), loop_s=20)
    uri = "s3://interviews/long/hour.mp4"
    filesystem, key = storage.open_filesystem(uri)
    with filesystem.open_output_stream(key) as stream, path.open("rb") as file:
        shutil.copyfileobj(file, stream, 8 << 20)
    span = Span(1800 * MICROSECONDS, 1860 * MICROSECONDS)
    windows = split_windows(3600 * MICROSECONDS, 2 * MICROSECONDS, MICROSECONDS, span)
    expected = decode_chunk(path, span, windows)
    size = path.stat().st_size
    with path.open("rb") as file, counting_proxy(s3.endpoint) as proxy:
        index_bytes = size - file.read().rindex(b"moov")
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        found = decode_chunk(uri, span, windows)
    np.testing.assert_array_equal(found.frames_NHWC, expected.frames_NHWC)
    print(f"{proxy.num_bytes} bytes in {proxy.num_requests} requests; index {index_bytes}, a minute {size / 60:.0f}")
    assert proxy.num_bytes < 1.15 * size / 60 + index_bytes
    assert proxy.num_requests <= proxy.num_bytes / 2**20


def test_an_archive_is_labelled_from_bucket_to_bucket(s3: S3Server, archive: Path, model: str) -> None:
    for path in archive.rglob("*"):
        if path.is_file():
            storage.write_bytes(f"s3://interviews/all/{path.relative_to(archive)}", path.read_bytes())
    for name in ("model.safetensors", "config.json"):
        storage.write_bytes(f"s3://results/model/{name}", Path(model, name).read_bytes())
    command = [sys.executable, "-m", "jobs.label", "s3://interviews/all", "s3://results/labels"]
    for _ in range(2):  # the second time everything is done, and the tables take their own place
        done = subprocess.run(
            [*command, "--model", "s3://results/model"],
            cwd=ROOT,
            env=os.environ | s3.environment,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr
    tables: dict[str, pd.DataFrame] = {}
    for name in ("windows", "videos", "failures"):
        record = json.loads(storage.read_bytes("s3://results/labels/_published.json"))
        filesystem, folder = storage.open_filesystem(record["tables"][name])
        tables[name] = pads.dataset(folder, filesystem=filesystem).to_table().to_pandas()
    assert {Path(video).name for video in tables["failures"]["video"]} == BAD.keys()
    assert tables["videos"]["covered_s"].sum() == pytest.approx(sum(GOOD.values()), abs=0.01)
    assert len(tables["windows"]) == tables["videos"]["num_windows"].sum()
