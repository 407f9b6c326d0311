"""Labels in a bucket: read, shown and exported there, and pages that play what is in it."""

import re
from html import unescape
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import boto3
import pytest

from microaction.export.exporters import EXPORTERS
from microaction.export.labels import Event, read_labels
from microaction.export.report import page_name, write_report
from tests.ceph import S3Server
from tests.export.outputs import Video, write_output

pytestmark = pytest.mark.cluster
NAME = "ann's first?.mp4"
VIDEO = f"s3://interviews/pages/{NAME}"


@pytest.fixture
def out(s3: S3Server, tmp_path: Path) -> str:
    local = write_output(tmp_path / "out", "s3://interviews/pages", [Video(NAME, [Event(1, 9, 1.0, 2.0, 0.9, 0.9)])])
    client = boto3.client("s3")
    client.put_object(Bucket="interviews", Key=f"pages/{NAME}", Body=b"0123456789")
    for path in local.rglob("*"):
        if path.is_file() and not any(parent.is_symlink() for parent in (path, *path.parents)):
            client.put_object(Bucket="results", Key=f"pages/{path.relative_to(local)}", Body=path.read_bytes())
    return "s3://results/pages"


def test_pages_in_a_bucket_play_videos_in_another(out: str) -> None:
    index = write_report(read_labels(out), link_s=600)
    assert index == "s3://results/pages/report/index.html"
    key = f"pages/report/videos/{page_name(VIDEO)}"
    found = boto3.client("s3").get_object(Bucket="results", Key=key)
    assert found["ContentType"] == "text/html; charset=utf-8", "a browser shows it, and does not save it"
    page = found["Body"].read().decode()
    (source,) = re.findall(r'<video id="video" src="([^"]*)"', page)
    origin = "/".join(source.split("/")[:3])
    assert f"media-src 'self' file: {origin}\"" in page
    with urlopen(Request(unescape(source), headers={"Range": "bytes=2-4"})) as answer:
        assert (answer.status, answer.read()) == (206, b"234")
    with pytest.raises(HTTPError, match="403"):
        urlopen(unescape(source).replace("Signature=", "Signature=0"))


def test_every_format_is_written_to_a_bucket(out: str) -> None:
    labels = read_labels(out)
    for name, exporter in EXPORTERS.items():
        written = exporter.write(labels, labels.each_video(), f"s3://results/exports/{name}")
        assert (written.num_videos, written.num_events) == (1, 1), name
        listed = boto3.client("s3").list_objects_v2(Bucket="results", Prefix=f"exports/{name}/")["Contents"]
        assert all(each["Size"] for each in listed)
    table = boto3.client("s3").head_object(Bucket="results", Key="exports/csv/events.csv")
    assert table["ContentType"] == "text/csv; charset=utf-8"
