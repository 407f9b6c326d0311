"""What labeling reports to Ray's Prometheus endpoint."""

import re
import shutil
import time
import urllib.request
import uuid
from collections import Counter
from pathlib import Path

import pytest
import ray
from ray.util.metrics import Gauge

from microaction.labeling import pipeline
from tests.archives import GOOD
from tests.labeling.decoders import PoisonedDecoder
from tests.labeling.runs import label

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]

SAMPLE = re.compile(r'ray_microaction_label_(\w+)\{(?:.*[{,]error="(\w+)")?.*\} (\S+)')


def endpoint() -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics") as response:
        return str(response.read().decode())


def samples() -> Counter[str]:
    """Return the metrics summed over processes; failures by error, as failed_chunks_total/decode_error."""
    found: Counter[str] = Counter()
    for name, error, value in SAMPLE.findall(endpoint()):
        found[f"{name}/{error}" if error else name] += float(value)  # type: ignore[assignment]
    return found


def wait_for_report() -> None:
    """Return once the endpoint has all that this process has counted so far."""
    marker = f"marker_{uuid.uuid4().hex}"
    Gauge(marker, "Set now.").set(1)
    while marker not in endpoint():
        time.sleep(0.2)


@pytest.mark.slow
def test_prometheus_receives_what_labeling_did(
    archive: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "Decoder", PoisonedDecoder)
    shutil.copy(archive / "a.mp4", archive / "poison.mp4")
    data = bytearray((archive / "a.mp4").read_bytes())
    data[len(data) // 4 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 4)
    (archive / "broken.mp4").write_bytes(data)
    wait_for_report()
    before = samples()
    summary = label(archive, tmp_path / "out", model)
    # Labelers and the driver report to the endpoint at their own times.
    while (after := samples())["remaining_video_seconds"] or (
        after["chunks_total"] - before["chunks_total"] < summary.num_chunks
    ):
        time.sleep(0.2)
    gained = after.copy()
    gained.subtract(before)
    assert gained["windows_total"] == summary.publication.num_windows
    assert gained["video_seconds_total"] == pytest.approx(summary.publication.video_s, abs=0.01)
    assert gained["chunks_total"] == summary.num_chunks == len(GOOD) + 2
    failed = {name: number for name, number in gained.items() if name.startswith("failed_chunks_total") and number}
    assert failed == {"failed_chunks_total/worker_died": 1, "failed_chunks_total/decode_error": 1}
    readable = [archive / name for name in (*GOOD, "broken.mp4")]
    assert 0 < gained["read_bytes_total"] <= 2 * sum(path.stat().st_size for path in readable)
    assert gained["frames_total"] > gained["windows_total"]
    assert after["busy_ratio"] > 0
