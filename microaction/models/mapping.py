"""Loads published weights strictly, by rules that turn the keys of a layout into ours. Importable without torch."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from microaction.models.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn

HEADS = ("action.", "body.", "embedding.")
"""How the names of the heads' weights begin, in every network that classifies clips."""
MMACTION_CLASSIFIER = (r"cls_head\.fc_cls\.(weight|bias)", r"action.\1")
STEP_COUNTER = "num_batches_tracked"  # batch norm's; older checkpoints lack it, and inference ignores it

Tensors = dict[str, "Tensor"]


@dataclass(frozen=True)
class Layout:
    """How a publisher names the weights of a network.

    `name`: of the layout, for messages. `rules`: pairs of a pattern of a whole key and our name for it, tried in order.
    `unused`: patterns of keys whose weights the published network never uses. `may_lack`: patterns of our names that the
    layout has no weights for. `transform` turns the renamed tensors into those of the network that it is given: for weights
    that must be split, joined or inflated.
    """

    name: str
    rules: tuple[tuple[str, str], ...]
    unused: tuple[str, ...] = ()
    may_lack: tuple[str, ...] = ()
    transform: "Callable[[Any, Tensors], Tensors] | None" = None

    def our_name(self, key: str) -> str | None:
        """Return our name of a key, or None for a key that the layout does not have."""
        for pattern, ours in self.rules:
            if _compiled(pattern).fullmatch(key):
                return _compiled(pattern).sub(ours, key, count=1)
        return None


def load_layout(layout: Layout, model: "nn.Module", state_dict: Mapping[str, Any], *, any_head: bool = False) -> None:
    """Load published weights into `model`.

    Strict: unknown keys, missing keys and wrong shapes raise `CheckpointError` that lists them, and the model is unchanged then.
    With `any_head`, heads that the weights lack, or that are of another size, stay as they are.
    """
    tensors, key_of, problems = _renamed(layout, state_dict)
    expected = model.state_dict()
    if layout.transform is not None:
        try:
            tensors = layout.transform(model, tensors)
        except (KeyError, RuntimeError, ValueError) as error:
            refuse([*problems, f"cannot be converted: {str(error).splitlines()[0]}"], layout.name)
    for name in [name for name in tensors if any_head and name.startswith(HEADS)]:
        if name not in expected or tensors[name].shape != expected[name].shape:
            del tensors[name]
    for name, tensor in tensors.items():
        if name not in expected:
            problems.append(f"unknown: {key_of.get(name, name)}")
        elif tensor.shape != expected[name].shape:
            given, own = tuple(tensor.shape), tuple(expected[name].shape)
            problems.append(f"wrong shape: {key_of.get(name, name)} {given}, the model has {own}")
    for name in expected:
        if name in tensors or name.endswith(STEP_COUNTER) or _matches(layout.may_lack, name):
            continue
        if not (any_head and name.startswith(HEADS)):
            problems.append(f"missing: {name}")
    refuse(problems, layout.name)
    model.load_state_dict(expected | tensors)


def _renamed(layout: Layout, state_dict: Mapping[str, Any]) -> tuple[Tensors, dict[str, str], list[str]]:
    """Return the tensors by our names, the published key of each name, and what does not fit."""
    from torch import Tensor

    tensors: Tensors = {}
    key_of: dict[str, str] = {}
    problems: list[str] = []
    for key, value in state_dict.items():
        if _matches(layout.unused, key):
            continue
        name = layout.our_name(key)
        if name is None:
            problems.append(f"unknown: {key}")
        elif not isinstance(value, Tensor):
            problems.append(f"not a tensor: {key} ({type(value).__name__})")
        else:
            tensors[name], key_of[name] = value, key
    return tensors, key_of, problems


def refuse(problems: Sequence[str], what: str) -> None:
    """Raise `CheckpointError` if there are problems."""
    if problems:
        raise CheckpointError(
            f"not {what} of this model's shape: {len(problems)} keys do not fit:\n  " + "\n  ".join(problems)
        )


def has_keys(keys: Collection[str], *patterns: str) -> bool:
    """Return whether each of the patterns matches one of the keys as a whole."""
    return all(any(_compiled(pattern).fullmatch(key) for key in keys) for pattern in patterns)


def num_layers(keys: Collection[str], pattern: str) -> int:
    """Return how many different numbers the pattern's group has in the keys that begin with it."""
    return len({match[1] for key in keys if (match := _compiled(pattern).match(key))})


def stage_depths(keys: Collection[str], pattern: str, num_stages: int) -> tuple[int, ...]:
    """Return how many blocks each stage has; `pattern` has `{}` for the stage, from 1, and a group for the block."""
    return tuple(num_layers(keys, pattern.format(stage)) for stage in range(1, num_stages + 1))


def _matches(patterns: Sequence[str], key: str) -> bool:
    return any(_compiled(pattern).fullmatch(key) for pattern in patterns)


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)
