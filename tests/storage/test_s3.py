"""URIs work as paths do, against a real S3 server. Skipped where Ceph is not installed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import boto3
import numpy as np
import pandas as pd
import pyarrow.dataset as pads
import pytest

from microaction import storage
from microaction.errors import EXIT_RETRY, EXIT_USAGE
from microaction.labeling.people_list import read_people_list
from microaction.schema import CLIPS_FILE, TRAINING_CLIPS, parquet_bytes
from microaction.storage import StorageError
from microaction.synthetic.scene import Shot, make_scene, side_by_side
from microaction.video import decode_chunk, decode_frames, probe
from microaction.video.windows import MICROSECONDS, Span, split_windows
from tests.archives import BAD, GOOD
from tests.benchmarks.videos import write_long_video
from tests.ceph import S3Server
from tests.proxy import counting_proxy
from tests.storage.test_files import write_half
from tests.videos import number_of

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]


@pytest.mark.usefixtures("s3")
def test_files_are_written_read_listed_and_deleted() -> None:
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
    assert not storage.put_if_absent("s3://results/folder/a", b"other")
    assert storage.put_if_absent("s3://results/folder/deep/b", b"data")
    assert storage.list_folders("s3://results/folder") == ["deep"]
    storage.delete_tree("s3://results/folder")
    with pytest.raises(FileNotFoundError, match="no files below s3://results/folder: check"):
        list(storage.list_files("s3://results/folder"))
    with pytest.raises(StorageError, match="no bucket 'absent'"):
        list(storage.list_files("s3://absent/x"))


@pytest.mark.usefixtures("s3")
def test_a_stream_is_published_whole_or_not_at_all() -> None:
    uri, piece = "s3://results/streamed/file", os.urandom(1 << 20)
    with storage.open_output(uri) as file:
        for _ in range(20):  # more than one part of an upload
            file.write(piece)
        assert not storage.exists(uri)
    assert storage.read_bytes(uri) == piece * 20
    with pytest.raises(KeyboardInterrupt):
        write_half(uri, KeyboardInterrupt)
    with pytest.raises(StorageError, match="no bucket 'absent'"), storage.open_output("s3://absent/file") as file:
        file.write(b"data")
    assert storage.read_bytes(uri) == piece * 20
    assert not boto3.client("s3").list_multipart_uploads(Bucket="results").get("Uploads")


@pytest.mark.usefixtures("s3")
def test_a_video_is_decoded_from_its_uri(counted_video: Path) -> None:
    storage.write_bytes("s3://interviews/one/counted.mp4", counted_video.read_bytes())
    uri = "s3://interviews/one/counted.mp4"
    assert probe(uri) == probe(counted_video)
    assert [number_of(frame) for frame in decode_frames(uri, [60, 3])] == [60, 3]


def test_a_minute_of_an_hour_reads_a_minute_of_bytes(
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


@pytest.mark.slow
def test_an_archive_is_labeled_from_bucket_to_bucket(s3: S3Server, archive: Path, model: str) -> None:
    for path in archive.rglob("*"):
        if path.is_file():
            storage.write_bytes(f"s3://interviews/all/{path.relative_to(archive)}", path.read_bytes())
    for name in ("model.safetensors", "config.json"):
        storage.write_bytes(f"s3://results/model/{name}", Path(model, name).read_bytes())
    for _ in range(2):  # the second run finds everything done, and replaces the tables with the same ones
        done = run_job_as(
            s3.environment,
            "label",
            "--people=off",
            "s3://interviews/all",
            "s3://results/labels",
            "--model",
            "s3://results/model",
        )
        assert done.returncode == 0, done.stderr
    tables: dict[str, pd.DataFrame] = {}
    for name in ("windows", "videos", "failures"):
        record = json.loads(storage.read_bytes("s3://results/labels/_publication.json"))
        filesystem, folder = storage.open_filesystem(record["tables"][name])
        tables[name] = pads.dataset(folder, filesystem=filesystem).to_table().to_pandas()
    assert {Path(video).name for video in tables["failures"]["video"]} == BAD.keys()
    assert tables["videos"]["covered_s"].sum() == pytest.approx(sum(GOOD.values()), abs=0.01)
    assert len(tables["windows"]) == tables["videos"]["num_windows"].sum()


@pytest.mark.slow
def test_people_are_found_from_bucket_to_bucket(s3: S3Server, tmp_path: Path) -> None:
    shots = [Shot(10.0, side_by_side(0, 1))]
    make_scene(tmp_path / "two.mp4", subject_seeds=[9100, 9101], shots=shots, seed=5, size=(640, 360), fps=4)
    storage.write_bytes("s3://interviews/people/two.mp4", (tmp_path / "two.mp4").read_bytes())
    done = run_job_as(s3.environment, "people", "s3://interviews/people", "s3://results/people", "--model", "demo")
    assert done.returncode == 0, done.stderr
    listed = read_people_list("s3://results/people/people.parquet")
    assert listed["person"].to_pylist() == [1, 2]
    pages = [file.uri for file in storage.list_files("s3://results/people/contact") if file.uri.endswith(".html")]
    assert len(pages) == 2, "the archive's, and the video's"
    video_page = next(uri for uri in pages if not uri.endswith("/index.html"))
    assert b"person 2" in storage.read_bytes(video_page)
    left = listed.slice(0, 1)
    storage.write_bytes("s3://results/people/edited.parquet", parquet_bytes(left))
    edited = ("--people", "s3://results/people/edited.parquet")
    arguments = ("s3://interviews/people", "s3://results/people", "--model", "demo", *edited)
    labeled = run_job_as(s3.environment, "label", *arguments)
    assert labeled.returncode == 0, labeled.stderr
    record = json.loads(storage.read_bytes("s3://results/people/_publication.json"))
    filesystem, folder = storage.open_filesystem(record["tables"]["windows"])
    assert set(pads.dataset(folder, filesystem=filesystem).to_table()["person"].to_pylist()) == {1}


def run_job_as(environment: dict[str, str], name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m jobs.NAME …` in a process that has these credentials and no others."""
    command = [sys.executable, "-m", f"jobs.{name}", *arguments]
    others = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    no_others = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
    return subprocess.run(
        command, cwd=ROOT, env=others | no_others | environment, capture_output=True, text=True, check=False
    )


def error_of(job: subprocess.CompletedProcess[str], *, code: int = EXIT_USAGE) -> str:
    """Return the one line with which a job failed."""
    assert job.returncode == code, job.stderr
    assert "Traceback" not in job.stderr
    return job.stderr.splitlines()[-1]


@pytest.mark.slow
def test_read_access_to_the_archive_is_enough(s3: S3Server, archive: Path, model: str, tmp_path: Path) -> None:
    for name in GOOD:
        storage.write_bytes(f"s3://interviews/shared/{name}", (archive / name).read_bytes())
    reader = {"AWS_ENDPOINT_URL": s3.endpoint} | s3.add_user("reader", "readersecret123")
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": ["arn:aws:iam:::user/reader"]},
        "Action": ["s3:ListBucket", "s3:GetObject"],
        "Resource": ["arn:aws:s3:::interviews", "arn:aws:s3:::interviews/*"],
    }
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    boto3.client("s3").put_bucket_policy(Bucket="interviews", Policy=json.dumps(policy))
    client = boto3.session.Session(reader["AWS_ACCESS_KEY_ID"], reader["AWS_SECRET_ACCESS_KEY"]).client("s3")
    client.create_bucket(Bucket="readers-own")
    done = run_job_as(
        reader, "label", "--people=off", "s3://interviews/shared", "s3://readers-own/labels", "--model", model
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(client.get_object(Bucket="readers-own", Key="labels/_run.json")["Body"].read())
    assert record["summary"]["publication"]["covered_s"] == pytest.approx(sum(GOOD.values()), abs=0.01)

    trained = str(shutil.copytree(model, tmp_path / "trained"))
    Path(trained, CLIPS_FILE).write_bytes(parquet_bytes(TRAINING_CLIPS.empty_table()))
    storage.write_bytes("s3://results/of/another/user", b"data")
    before = sorted(file.uri for bucket in ("interviews", "results") for file in storage.list_files(f"s3://{bucket}"))
    label = ("label", "--people=off", "s3://interviews/shared")
    for command, location in (
        ((*label, "s3://interviews/labels", "--model", model), "s3://interviews/labels/_lease/00000001.json"),
        (
            (*label, "s3://readers-own/more", "--model", "s3://results/models@production"),
            "s3://results/models/_production",
        ),
        (("registry", "list", "s3://results/models"), "s3://results/models"),
        (("registry", "add", "s3://results/models", trained), "s3://results/models"),
    ):
        assert error_of(run_job_as(reader, *command)).startswith(f"no access to {location}")
    after = sorted(file.uri for bucket in ("interviews", "results") for file in storage.list_files(f"s3://{bucket}"))
    assert after == before


@pytest.mark.slow
def test_bad_credentials_and_dead_stores_fail_before_any_work(s3: S3Server, archive: Path, model: str) -> None:
    storage.write_bytes("s3://interviews/few/a.mp4", (archive / "a.mp4").read_bytes())
    command = ("label", "--people=off", "s3://interviews/few", "s3://results/few", "--model", model)
    right = s3.environment
    wrong = right | {"AWS_SECRET_ACCESS_KEY": "wrong"}
    unknown = right | {"AWS_ACCESS_KEY_ID": "nobody"}
    none = {name: value for name, value in right.items() if "KEY" not in name}
    listing = ("registry", "list", "s3://results/models")
    unreachable = right | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    for environment, arguments, code, message in (
        (wrong, command, EXIT_USAGE, "the credentials for s3://results/few/_run.json are wrong"),
        (unknown, listing, EXIT_USAGE, "the credentials for s3://results/models"),
        (none, listing, EXIT_USAGE, "no credentials for s3://results/models"),
        (unreachable, listing, EXIT_RETRY, "http://127.0.0.1:9 does not answer"),
    ):
        assert error_of(run_job_as(environment, *arguments), code=code).startswith(message)
    absent = run_job_as(right, "registry", "list", "s3://absent/models")
    assert error_of(absent).startswith("no bucket 'absent'")
    with pytest.raises(FileNotFoundError):
        list(storage.list_files("s3://results/few"))


def test_throttled_and_broken_requests_are_retried(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, counted_video: Path
) -> None:
    faults = ("throttle", "", "reset", "", "cut", "")
    with counting_proxy(s3.endpoint, faults) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        for number in range(2):
            uri, data = f"s3://results/faulty/{number:02d}", os.urandom(1000)
            if number % 2:
                storage.write_bytes(uri, data)
            else:
                assert storage.put_if_absent(uri, data), "its own earlier attempt is not another writer's"
                assert not storage.put_if_absent(uri, b"other")
            assert storage.read_bytes(uri) == data
            assert storage.exists(uri)
        assert len(list(storage.list_files("s3://results/faulty"))) == 2
        storage.write_bytes("s3://interviews/faulty.mp4", counted_video.read_bytes())
        frames = decode_frames("s3://interviews/faulty.mp4", [0, 50, 100])
        assert [number_of(frame) for frame in frames] == [0, 50, 100]


def test_a_conflicting_creation_is_retried(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with counting_proxy(s3.endpoint, ("conflict", "conflict", "")) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        assert storage.put_if_absent("s3://results/conflict", b"data"), "the other writer's attempt failed"
    with counting_proxy(s3.endpoint, ("conflict",)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        with pytest.raises(StorageError, match="ConditionalRequestConflict"):
            storage.put_if_absent("s3://results/conflict-forever", b"data")


def test_keys_that_are_no_paths_can_be_read(s3: S3Server, counted_video: Path) -> None:
    data = counted_video.read_bytes()
    names = ("odd//one.mp4", "odd/./two.mp4", "odd/../three.mp4", "odd/four.mp4/")
    for name in names:
        boto3.client("s3").put_object(Bucket="interviews", Key=name, Body=data)
    found = [file.uri for file in storage.ArchiveListing("s3://interviews/odd")]
    assert found == sorted(f"s3://interviews/{name}" for name in names[:3])
    for uri in found:
        assert probe(uri).num_frames == probe(data).num_frames
        assert storage.version_of(uri)
