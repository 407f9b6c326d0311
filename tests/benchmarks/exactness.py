"""For how many videos of the tests' matrix each backend gives every frame, bit for bit, as a full decode does.

`python -m tests.benchmarks.exactness` runs each decoder in a process of its own, ten seconds a video at most.
"""

import importlib.util
import tempfile
from collections import Counter
from pathlib import Path

from rich.table import Table

from microaction.video import DecodeError
from microaction.video.decode import BackendName
from microaction.video.sandbox import Limits, Sandbox
from tests.benchmarks.timing import console
from tests.video import matrix
from tests.video.damage import agreement

BACKENDS: tuple[BackendName, ...] = ("av", "decord", "torchcodec")


def main() -> None:
    results = {backend: Counter[str]() for backend in BACKENDS if importlib.util.find_spec(backend)}
    sandbox = Sandbox(Limits(time_s=10))
    with tempfile.TemporaryDirectory() as folder:
        for coding in matrix.CODINGS:
            for suffix in matrix.FORMATS:
                for timing in matrix.TIMINGS:
                    if not matrix.exists(coding, suffix, timing):
                        continue
                    path = Path(folder) / f"{timing}{suffix}"
                    matrix.write(path, coding, timing)
                    for backend, outcomes in results.items():
                        try:
                            outcomes[sandbox.call(str(path), agreement, str(path), backend)] += 1
                        except (DecodeError, RuntimeError, ValueError) as error:
                            outcomes["stopped or died" if isinstance(error, DecodeError) else "error"] += 1
    sandbox.close()
    kinds = ("exact", "other pixels", "refused", "stopped or died", "error")
    table = Table("backend", *kinds, title="Every third frame of each video of the matrix")
    for backend, outcomes in results.items():
        table.add_row(backend, *(str(outcomes[kind]) for kind in kinds))
    console.print(table)


if __name__ == "__main__":
    main()
