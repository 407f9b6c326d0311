"""Peak memory of a labeling run, of all its processes together, by the length of the video.

python -m tests.benchmarks.labeling_memory [--minutes 10 20 60 180]
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.table import Table

from microaction.models import CheckpointConfig, build_model, save_checkpoint
from microaction.models.manet.config import ManetConfig
from microaction.preprocessing import Preprocessing
from microaction.taxonomy import ACTIONS
from tests.benchmarks.timing import console
from tests.benchmarks.videos import write_long_video

SIZE = (640, 360)
SAMPLES_PER_S = 2


def peak_mebibytes(command: list[str]) -> tuple[float, float]:
    """Return the peak memory of a command and its descendants, with shared pages counted once, and the seconds taken."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    peak, started_s = 0.0, time.monotonic()
    while process.poll() is None:
        peak = max(peak, sum(_proportional_kibibytes(pid) for pid in _family(process.pid)) / 1024)
        time.sleep(1 / SAMPLES_PER_S)
    assert process.stderr is not None
    if process.returncode:
        raise RuntimeError(process.stderr.read())
    return peak, time.monotonic() - started_s


def _family(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "--parent", str(pid)], capture_output=True, text=True, check=False).stdout.split()
    return [pid, *(member for child in found for member in _family(int(child)))]


def _proportional_kibibytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, nargs="+", default=[10, 20, 60, 180])
    arguments = parser.parse_args()
    table = Table(
        "video",
        "peak memory",
        "seconds",
        title=f"microaction label, {SIZE[0]}×{SIZE[1]} H.264 in MP4, frames of 224 pixels",
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = ManetConfig(width=8, depths=(1, 1, 1, 1), embedding_dim=8)
        config = CheckpointConfig(
            model=model, preprocessing=Preprocessing(), labels=ACTIONS, recipe={}, versions={}, metrics={}
        )
        save_checkpoint(build_model(model), config, str(root / "model"))
        for minutes in arguments.minutes:
            archive = root / f"{minutes}"
            archive.mkdir()
            write_long_video(archive / "video.mp4", duration_s=minutes * 60, size=SIZE, loop_s=20)
            command = [sys.executable, "-m", "jobs.label", str(archive), f"{archive}-out", f"--model={root}/model"]
            peak, seconds = peak_mebibytes([*command, "--compile=no", "--precision=fp32", "--people=off"])
            table.add_row(f"{minutes} min", f"{peak:.0f} MiB", f"{seconds:.0f}")
    console.print(table)


if __name__ == "__main__":
    main()
