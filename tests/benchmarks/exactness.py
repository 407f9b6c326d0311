"""For how many videos of the tests' matrix each backend returns, bit for bit, the frames of a full decode.

`python -m tests.benchmarks.exactness` runs the decoders in a process of their own, for at most a minute per video.
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
from tests.video.damage import compare_backend

BACKENDS: tuple[BackendName, ...] = ("av", "decord", "torchcodec")


def main() -> None:
    results = {backend: Counter[str]() for backend in BACKENDS if importlib.util.find_spec(backend)}
    sandbox = Sandbox(Limits(time_s=60))
    with tempfile.TemporaryDirectory() as folder:
        for case in matrix.CASES:
            path = Path(folder) / case.file_name
            matrix.write(path, case.coding, case.timing)
            for backend, counts in results.items():
                try:
                    counts[sandbox.call(str(path), compare_backend, str(path), backend)] += 1
                except (DecodeError, RuntimeError, ValueError) as error:
                    counts["timed out or crashed" if isinstance(error, DecodeError) else "error"] += 1
    sandbox.close()
    kinds = ("exact", "other pixels", "refused", "timed out or crashed", "error")
    table = Table("backend", *kinds, title=f"Every third frame of each of the {len(matrix.CASES)} videos of the matrix")
    for backend, counts in results.items():
        table.add_row(backend, *(str(counts[kind]) for kind in kinds))
    console.print(table)


if __name__ == "__main__":
    main()
