"""Puts the ledger's small files together while a run goes on, in tasks beside it."""

from types import TracebackType
from typing import Self

import ray

from microaction.labeling import ledger
from microaction.machines import result_of

COMPACTION_CPUS = 0.1  # it waits for storage
COMPACTION_LIMIT_S = 1800.0  # it takes seconds


class Compaction:
    """As a context manager: waits at the end for what it began. Nobody may read the ledger while a task is under way."""

    def __init__(self, out: str) -> None:
        self.out = out
        self._names: list[str] = []
        self._task: ray.ObjectRef | None = None

    def __enter__(self) -> Self:
        for name in ledger.list_commits(self.out):
            self.add(name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.settle()

    def add(self, name: str) -> None:
        """A new file of the ledger."""
        self._names.append(name)
        if len(self._names) >= ledger.COMMITS_PER_SEGMENT:
            self.settle()
            self._task = ray.remote(num_cpus=COMPACTION_CPUS, max_retries=3)(_compact).remote(self.out, self._names)
            self._names = []

    def settle(self) -> None:
        """Waits until no task is under way."""
        if self._task is not None:
            result_of(self._task, COMPACTION_LIMIT_S, "putting the ledger's files together")
            self._task = None


def _compact(out: str, names: list[str]) -> None:
    try:
        ledger.compact(out, names)
    except FileNotFoundError:  # a task that outlived its run did it
        return
