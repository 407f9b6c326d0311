"""Weights that ActionFormer's authors publish, in our names."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from microaction.models.detector.network import PointDetector
from microaction.models.errors import CheckpointError

_RULES = (
    (r"backbone\.embd\.(\d+)\.conv\.weight", r"embedding.\1.weight"),
    (r"backbone\.embd_norm\.(\d+)\.(\w+)", r"embedding_norms.\1.\2"),
    (r"(.+\.attn\.\w+_conv)\.conv\.weight", r"\1.weight"),
    (r"(.+)\.mlp\.3\.(\w+)", r"\1.mlp.2.\2"),
    (r"(.+)\.drop_path_(attn|mlp)\.scale", r"\1.\2_scale"),
    (r"neck\.fpn_norms\.(\d+)\.(\w+)", r"level_norms.\1.\2"),
    (r"cls_head\.head\.(\d+)\.conv\.weight", r"classes.convs.\1.weight"),
    (r"cls_head\.norm\.(\d+)\.(\w+)", r"classes.norms.\1.\2"),
    (r"cls_head\.cls_head\.conv\.(\w+)", r"classes.output.\1"),
    (r"reg_head\.head\.(\d+)\.conv\.weight", r"distances.convs.\1.weight"),
    (r"reg_head\.norm\.(\d+)\.(\w+)", r"distances.norms.\1.\2"),
    (r"reg_head\.offset_head\.conv\.(\w+)", r"distances.output.\1"),
)
_SCALE = re.compile(r"reg_head\.scale\.(\d+)\.scale")


def load_actionformer(model: PointDetector, state: Mapping[str, Any]) -> None:
    """Load ActionFormer's weights into a detector of the same size, with shared boundaries and attention.

    `state` is a state dict of the authors' code; entries of training alone, such as the points' buffers, are left out. Strict:
    raises `CheckpointError` that lists unknown and missing keys and wrong shapes, and leaves the model unchanged.
    """
    tensors: dict[str, Tensor] = {}
    scales: dict[int, Tensor] = {}
    for key, value in state.items():
        name = key.removeprefix("module.")
        if name.startswith("point_generator."):
            continue
        scale = _SCALE.fullmatch(name)
        if scale:
            scales[int(scale[1])] = torch.as_tensor(value).reshape(())
        else:
            tensors[_our_name(name)] = torch.as_tensor(value)
    if scales:
        tensors["level_scales"] = torch.stack([scales[level] for level in sorted(scales)])
    expected = model.state_dict()
    problems = [f"unknown: {name}" for name in tensors if name not in expected]
    problems += [f"missing: {name}" for name in expected if name not in tensors]
    problems += [
        f"wrong shape: {name} {tuple(tensors[name].shape)}, the model has {tuple(value.shape)}"
        for name, value in expected.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    if problems:
        raise CheckpointError(f"not the weights of this detector: {'; '.join(problems[:5])} ({len(problems)} in all)")
    model.load_state_dict(tensors)


def _our_name(name: str) -> str:
    for pattern, ours in _RULES:
        if re.fullmatch(pattern, name):
            name = re.sub(pattern, ours, name)
    return name.removeprefix("backbone.").replace("branch.", "branches.", 1)
