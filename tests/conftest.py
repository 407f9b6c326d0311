"""What the tests share: a local Ray per pytest process, facts from the project's shared folder, small videos, commands."""

import os

# Several processes test at once: with a thread per core each, they would wait for each other in every small product.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# isort: split
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

# A busy node says nothing about a property.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

# A command that a test starts has a Ray of its own unless the test names a cluster: never one that happens to run here.
os.environ["RAY_ADDRESS"] = "local"

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
LONG_MARKS = ("nodes", "cluster")


class ByModule(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """With several pytest processes each runs whole modules; those that make nodes run one after the other in one process."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # pytest_collection_modifyitems orders the modules

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return "nodes" if "pytest.mark.nodes" in (ROOT / module).read_text() else module


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return ByModule(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run long modules first: short ones at the end keep all processes busy until it."""
    items.sort(key=lambda item: not any(item.get_closest_marker(mark) for mark in LONG_MARKS))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of facts that the project is built from; tests that compare with it are skipped where it is missing."""
    if not SHARED.is_dir():
        pytest.skip("the folder ../shared with the reference's data is missing")
    return SHARED


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local Ray of 4 logical CPUs, whatever the node has, so that pools of actors and tasks fit side by side."""
    os.environ["RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS"] = "0"
    ray.init(
        "local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=512 << 20,
        _system_config={"metrics_report_interval_ms": 1000},  # tests wait for metrics
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def counted_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 frames at 30 fps, H.264 with B-frames; the gray level of a frame is its number (see `videos.number_of`)."""
    path = tmp_path_factory.mktemp("videos") / "counted.mp4"
    write_video(path, num_frames=120)
    return path


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server with the buckets interviews and results; tests that need it are skipped where Ceph is not installed."""
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
    """The S3 server, with this process as a client too."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


@dataclass(frozen=True)
class CommandResult:
    """The exit code and the output of a command."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., CommandResult]:
    """Run `microaction NAME …` in this process, where everything is imported already, and on its Ray if there is one."""
    monkeypatch.setenv("COLUMNS", "200")
    if ray.is_initialized():
        monkeypatch.setattr(ray, "init", lambda **options: None)
        monkeypatch.setattr(ray, "shutdown", lambda: None)

    def run(name: str, *arguments: str) -> CommandResult:
        code = 0
        capsys.readouterr()  # of the test itself
        try:
            cli.main([name, *arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        return CommandResult(code, *capsys.readouterr())

    return run
