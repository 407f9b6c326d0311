"""Reads the checkpoint that the MANet authors publish (mmcv layout) into our MANet.

Every key is mapped by rule, loaded strictly, and what the published forward never uses is named here.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from microaction.model.checkpoint import CheckpointError
from microaction.model.manet import MANet

UNUSED_REFERENCE_KEYS = ("action_p2_squeeze.weight", "action_p2_conv1.weight", "action_p2_expand.weight")
"""Ends of the keys of `backbone.layer{L}.{i}.conv1.conv.` that the published forward never uses: 10,951,424 numbers."""

# Published name -> ours, tried in order on the whole key; {L}, {i} are kept by the groups.
_RULES: tuple[tuple[str, str], ...] = (
    (r"backbone\.conv1\.conv\.weight", r"backbone.conv1.weight"),
    (r"backbone\.conv1\.bn\.(\w+)", r"backbone.bn1.\1"),
    (r"backbone\.layer([1-4])\.(\d+)\.conv1\.conv\.net\.weight", r"backbone.layer\1.\2.conv1.weight"),
    (r"backbone\.layer([1-4])\.(\d+)\.conv1\.conv\.fcce\.0\.weight", r"backbone.layer\1.\2.se.squeeze.weight"),
    (r"backbone\.layer([1-4])\.(\d+)\.conv1\.conv\.fcce\.2\.weight", r"backbone.layer\1.\2.se.excite.weight"),
    (r"backbone\.layer([1-4])\.(\d+)\.conv([23])\.conv\.weight", r"backbone.layer\1.\2.conv\3.weight"),
    (r"backbone\.layer([1-4])\.(\d+)\.conv([123])\.bn\.(\w+)", r"backbone.layer\1.\2.bn\3.\4"),
    (r"backbone\.layer([1-4])\.(\d+)\.downsample\.conv\.weight", r"backbone.layer\1.\2.downsample.0.weight"),
    (r"backbone\.layer([1-4])\.(\d+)\.downsample\.bn\.(\w+)", r"backbone.layer\1.\2.downsample.1.\3"),
    (r"cls_head\.fc_cls\.(weight|bias)", r"action.\1"),
    (r"cls_head\.fc_emb\.(weight|bias)", r"embedding.hidden.\1"),
    (r"cls_head\.fc_emb_t\.(weight|bias)", r"embedding.output.\1"),
)
_UNUSED = re.compile(
    r"backbone\.layer[1-4]\.\d+\.conv1\.conv\.(?:" + "|".join(re.escape(key) for key in UNUSED_REFERENCE_KEYS) + ")"
)
_COUNTER = "num_batches_tracked"  # BatchNorm's step counter; older checkpoints lack it and inference ignores it


def load_reference_state(model: MANet, state_dict: Mapping[str, object]) -> None:
    """Loads the published MANet checkpoint into `model`.

    `state_dict` maps the published keys to tensors, bare or under the key `state_dict`. Strict: unknown keys, missing
    keys and wrong shapes raise `CheckpointError` that lists them; only `UNUSED_REFERENCE_KEYS` are passed over. The model
    is unchanged when an error is raised.
    """
    nested = state_dict.get("state_dict", state_dict)
    if not isinstance(nested, Mapping):
        raise CheckpointError(f"the entry 'state_dict' is a {type(nested).__name__}, not a mapping of names to tensors")
    expected = model.state_dict()
    mapped: dict[str, Tensor] = {}
    problems: list[str] = []
    for key, value in nested.items():
        if _UNUSED.fullmatch(key):
            continue
        name = _our_name(key)
        if name is None or name not in expected:
            problems.append(f"unknown: {key}")
        elif not isinstance(value, Tensor):
            problems.append(f"not a tensor: {key} ({type(value).__name__})")
        elif value.shape != expected[name].shape:
            problems.append(f"wrong shape: {key} {tuple(value.shape)}, the model has {tuple(expected[name].shape)}")
        else:
            mapped[name] = value
    refused = {name for name in (_our_name(key) for key in nested) if name is not None}
    problems += [f"missing: {name}" for name in expected if name not in refused and not name.endswith(_COUNTER)]
    if problems:
        raise CheckpointError(
            f"not a MANet checkpoint of this model's shape: {len(problems)} keys do not fit:\n  "
            + "\n  ".join(problems)
        )
    counters = {name: value for name, value in expected.items() if name.endswith(_COUNTER)}
    model.load_state_dict({**counters, **mapped}, strict=True)


def _our_name(key: str) -> str | None:
    for pattern, ours in _RULES:
        if re.fullmatch(pattern, key):
            return re.sub(pattern, ours, key)
    return None
