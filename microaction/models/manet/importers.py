"""Reads published weights into MANet: the authors' checkpoint (mmcv's layout), and torchvision's ResNet-50.

Every key is mapped by rule and loaded strictly; what the published forward never uses is named here.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from microaction.models.errors import CheckpointError
from microaction.models.manet.config import ManetConfig
from microaction.models.manet.network import MANet

UNUSED_PUBLISHED_KEYS = ("action_p2_squeeze.weight", "action_p2_conv1.weight", "action_p2_expand.weight")
"""Ends of the keys of `backbone.layer{L}.{i}.conv1.conv.` that the published forward never uses: 10,951,424 numbers."""
RESNET_CLASSIFIER = ("fc.weight", "fc.bias")  # of ImageNet's classes

# Published key -> ours, tried in order on the whole key; {L} and {i} are kept by the groups.
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
    r"backbone\.layer[1-4]\.\d+\.conv1\.conv\.(?:" + "|".join(re.escape(key) for key in UNUSED_PUBLISHED_KEYS) + ")"
)
_COUNTER = "num_batches_tracked"  # BatchNorm's step counter; older checkpoints lack it and inference ignores it


def load_published_state(model: MANet, state_dict: Mapping[str, object]) -> None:
    """Load the authors' checkpoint into `model`.

    Strict: unknown keys, missing keys and wrong shapes raise `CheckpointError` that lists them; only `UNUSED_PUBLISHED_KEYS`
    are ignored. The model is unchanged when an error is raised.
    """
    expected = model.state_dict()
    mapped: dict[str, Tensor] = {}
    problems: list[str] = []
    for key, value in state_dict.items():
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
    given = {name for name in (_our_name(key) for key in state_dict) if name is not None}
    problems += [f"missing: {name}" for name in expected if name not in given and not name.endswith(_COUNTER)]
    _refuse(problems, "a MANet checkpoint")
    counters = {name: value for name, value in expected.items() if name.endswith(_COUNTER)}
    model.load_state_dict({**counters, **mapped}, strict=True)


def published_config(state_dict: Mapping[str, Any]) -> ManetConfig:
    """Return the configuration that the shapes of the authors' checkpoint tell. Raises `CheckpointError`."""
    try:
        blocks = {
            (int(match[1]), int(match[2]))
            for key in state_dict
            if (match := re.match(r"backbone\.layer([1-4])\.(\d+)\.", key))
        }
        return ManetConfig.model_validate(
            {
                "num_classes": state_dict["cls_head.fc_cls.weight"].shape[0],
                "embedding_dim": state_dict["cls_head.fc_emb_t.weight"].shape[0],
                "width": state_dict["backbone.conv1.conv.weight"].shape[0],
                "depths": tuple(sum(stage == layer for layer, _ in blocks) for stage in (1, 2, 3, 4)),
            }
        )
    except (KeyError, AttributeError, IndexError, ValueError) as error:
        raise CheckpointError(f"not a whole MANet checkpoint: {error!r}") from error


def load_resnet_state(model: MANet, state_dict: Mapping[str, Any]) -> None:
    """Load torchvision's ResNet-50 into the backbone; squeeze-and-excitation, which it lacks, stays as it is.

    Strict except for the classifier of ImageNet's classes and for step counters. Raises `CheckpointError` that lists what does
    not fit; the model is unchanged then.
    """
    ours = {name: value for name, value in model.backbone.state_dict().items() if ".se." not in name}
    given = {name: value for name, value in state_dict.items() if name not in RESNET_CLASSIFIER}
    problems = [f"unknown: {name}" for name in given if name not in ours]
    problems += [f"missing: {name}" for name in ours if name not in given and not name.endswith(_COUNTER)]
    problems += [
        f"wrong shape: {name} {tuple(value.shape)}, the model has {tuple(ours[name].shape)}"
        for name, value in given.items()
        if name in ours and isinstance(value, Tensor) and value.shape != ours[name].shape
    ]
    _refuse(problems, "a ResNet-50")
    model.backbone.load_state_dict(model.backbone.state_dict() | given)


def _refuse(problems: Sequence[str], what: str) -> None:
    if problems:
        raise CheckpointError(
            f"not {what} of this model's shape: {len(problems)} keys do not fit:\n  " + "\n  ".join(problems)
        )


def _our_name(key: str) -> str | None:
    for pattern, ours in _RULES:
        if re.fullmatch(pattern, key):
            return re.sub(pattern, ours, key)
    return None
