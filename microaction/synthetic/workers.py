"""Runs drawing jobs in several processes and reports progress."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import chain
from typing import TypeVar

import cv2

Job = TypeVar("Job")
Result = TypeVar("Result")
OnProgress = Callable[[int, int], None]
"""Called with the number of finished jobs and the number of all jobs."""


def run_jobs(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    *,
    num_processes: int | None = None,
    batch_size: int = 1,
    on_progress: OnProgress | None = None,
) -> list[Result]:
    """Return what `function` returns for each job, in their order; the first error cancels the others and is raised.

    `function` must be importable, because processes receive it by name. With `num_processes=None` there is one process per
    usable core; with 1, or a single batch, jobs run in this process.
    """
    if num_processes is not None and num_processes < 1:
        raise ValueError(f"num_processes ({num_processes}) must be at least 1; pass None for one per core")
    batches = [jobs[start : start + batch_size] for start in range(0, len(jobs), batch_size)]
    num_workers = min(num_processes or len(os.sched_getaffinity(0)), len(batches))
    results: list[list[Result]] = [[] for _ in batches]
    num_done = 0
    if num_workers <= 1:
        for number, batch in enumerate(batches):
            results[number] = _run_batch(function, batch)
            num_done += len(batch)
            if on_progress:
                on_progress(num_done, len(jobs))
        return list(chain.from_iterable(results))
    # spawn, because a fork would copy the locks of a caller's threads (torch, Ray) into the workers.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, mp_context=context, initializer=_use_one_thread) as pool:
        try:
            numbers = {pool.submit(_run_batch, function, batch): number for number, batch in enumerate(batches)}
            for future in as_completed(numbers):
                results[numbers[future]] = future.result()
                num_done += len(batches[numbers[future]])
                if on_progress:
                    on_progress(num_done, len(jobs))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return list(chain.from_iterable(results))


def _run_batch(function: Callable[[Job], Result], batch: Sequence[Job]) -> list[Result]:
    return [function(job) for job in batch]


def _use_one_thread() -> None:
    cv2.setNumThreads(1)  # the processes are the parallelism
