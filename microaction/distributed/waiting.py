"""Waiting for tasks within bounds: a plain `ray.get` on a task behind a cut link may never return."""

from typing import Any

import ray

from microaction.errors import TransientError


class NodesUnavailableError(TransientError, RuntimeError):
    """The nodes that a command needs did not come, or stopped answering."""


def get_or_cancel(task: ray.ObjectRef, timeout_s: float, what: str, *, setting: str = "") -> Any:
    """Return the result of a task, or cancel it and raise `NodesUnavailableError` after `timeout_s` seconds.

    Raises what the task raises. `what` completes the sentence "… did not finish"; `setting` names the setting that
    `timeout_s` is, if any.
    """
    return pop_first_done([task], timeout_s, what, setting=setting)


def pop_first_done(tasks: list[ray.ObjectRef], timeout_s: float, what: str, *, setting: str = "") -> Any:
    """Return the result of the task that finishes first and remove it from the list; otherwise as `get_or_cancel`, which
    cancels all of them."""
    ready, _ = ray.wait(tasks, num_returns=1, timeout=timeout_s)
    if not ready:
        for task in tasks:
            ray.cancel(task, force=True)
        raise NodesUnavailableError(
            f"{what} did not finish within {timeout_s:g} s{setting and f' ({setting})'}: see `ray status` for nodes that are "
            "missing or cut off, and run the same command again"
        )
    tasks.remove(ready[0])
    return ray.get(ready[0])
