"""What the tests share: one Ray cluster for the session, the project's shared facts where they are, small videos."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import hypothesis
import pytest
import ray
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from microaction import cli
from tests.archives import archive, model
from tests.ceph import Ceph, S3Server
from tests.videos import write_video

__all__ = ["archive", "model"]

# Whether a machine is busy says nothing about a property.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


class ByCluster(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """With several processes: what uses a cluster runs in one of them, one after the other, and so does what makes several
    machines; the rest by module."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        text = (ROOT / module).read_text()
        return next((mark for mark in ("nodes", "cluster") if f"pytest.mark.{mark}" in text), module)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return ByCluster(config, log)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of facts that the project is built from; tests that compare with it skip where it is not."""
    if not SHARED.is_dir():
        pytest.skip("the folder ../shared with the reference's data is not here")
    return SHARED


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A Ray of 4 logical CPUs, whatever the machine has, so that pools of actors and tasks fit side by side."""
    os.environ["RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS"] = "0"
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=512 << 20)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def counted_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 frames at 30 fps, H.264 with B-frames, frame i a grey that tells i (see `videos.number_of`)."""
    path = tmp_path_factory.mktemp("videos") / "counted.mp4"
    write_video(path, num_frames=120)
    return path


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server with the buckets interviews and results; tests that need it skip where Ceph is not installed."""
    if not Ceph.is_installed():
        pytest.skip("Ceph is not installed: apt-get install ceph-mon ceph-osd ceph-common radosgw")
    ceph = Ceph(tmp_path_factory.mktemp("ceph"))
    try:
        server = ceph.start()
        with pytest.MonkeyPatch.context() as environment:
            for name, value in server.environment.items():
                environment.setenv(name, value)
            for bucket in ("interviews", "results"):
                boto3.client("s3").create_bucket(Bucket=bucket)
        yield server
    finally:
        ceph.stop()


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The S3 server, which this test's own process talks to too."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


@dataclass(frozen=True)
class Ended:
    """How a job ended and what it said."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Runs `microaction NAME …` in this process, in which everything is imported already."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(name: str, *arguments: str) -> Ended:
        code = 0
        try:
            cli.main([name, *arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        return Ended(code, *capsys.readouterr())

    return run
