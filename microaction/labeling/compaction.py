"""Compacts a ledger's small files while a run continues, in tasks beside it."""

from types import TracebackType
from typing import Self

import ray

from microaction.distributed.waiting import get_or_cancel
from microaction.labeling import ledger
from microaction.labeling.ledger import Ledger

COMPACTION_CPUS = 0.1  # it waits for storage
COMPACTION_LIMIT_S = 1800.0  # it takes seconds


class Compaction:
    """A context manager that waits at its end for the tasks that it started. Nobody may read the ledger while one runs."""

    def __init__(self, committed: Ledger, out: str) -> None:
        self.committed, self.out = committed, out
        self._names: list[str] = []
        self._task: ray.ObjectRef | None = None

    def __enter__(self) -> Self:
        for name in self.committed.list_commits(self.out):
            self.add(name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.wait()

    def add(self, name: str) -> None:
        """Add a new file of the ledger."""
        self._names.append(name)
        if len(self._names) >= ledger.COMMITS_PER_COMPACTION:
            self.wait()
            compact = ray.remote(num_cpus=COMPACTION_CPUS, max_retries=3)(_compact)
            self._task = compact.remote(self.committed, self.out, self._names)
            self._names = []

    def wait(self) -> None:
        """Return when no task is running."""
        if self._task is not None:
            get_or_cancel(self._task, COMPACTION_LIMIT_S, "compacting the ledger")
            self._task = None


def _compact(committed: Ledger, out: str, names: list[str]) -> None:
    try:
        committed.compact(out, names)
    except FileNotFoundError:  # a task that outlived its run did it
        return
