"""Weights that ActionFormer's authors publish, in our names."""

from collections.abc import Mapping
from typing import Any

import torch

from microaction.models.detector.network import PointDetector
from microaction.models.mapping import Layout, Tensors, load_layout

_BLOCKS = ((r"backbone\.stem\.(\d+)\.", r"stem.\1."), (r"backbone\.branch\.(\d+)\.", r"branches.\1."))


def _one_scale(model: PointDetector, tensors: Tensors) -> Tensors:
    """Join the levels' scales, which the published network has one by one."""
    scales = [tensors.pop(f"level_scales.{level}").reshape(()) for level in range(model.options.num_levels)]
    return tensors | {"level_scales": torch.stack(scales)}


ACTIONFORMER = Layout(
    "an ActionFormer as its authors save it",
    (
        (r"backbone\.embd\.(\d+)\.conv\.weight", r"embedding.\1.weight"),
        (r"backbone\.embd_norm\.(\d+)\.(\w+)", r"embedding_norms.\1.\2"),
        *(
            (theirs + rule, ours + name)
            for theirs, ours in _BLOCKS
            for rule, name in (
                (r"attn\.(\w+_conv)\.conv\.weight", r"attn.\2.weight"),
                (r"attn\.(\w+)\.(\w+)", r"attn.\2.\3"),
                (r"mlp\.0\.(\w+)", r"mlp.0.\2"),
                (r"mlp\.3\.(\w+)", r"mlp.2.\2"),
                (r"drop_path_(attn|mlp)\.scale", r"\2_scale"),
                (r"(ln\d)\.(\w+)", r"\2.\3"),
            )
        ),
        (r"neck\.fpn_norms\.(\d+)\.(\w+)", r"level_norms.\1.\2"),
        (r"cls_head\.head\.(\d+)\.conv\.weight", r"classes.convs.\1.weight"),
        (r"cls_head\.norm\.(\d+)\.(\w+)", r"classes.norms.\1.\2"),
        (r"cls_head\.cls_head\.conv\.(\w+)", r"classes.output.\1"),
        (r"reg_head\.head\.(\d+)\.conv\.weight", r"distances.convs.\1.weight"),
        (r"reg_head\.norm\.(\d+)\.(\w+)", r"distances.norms.\1.\2"),
        (r"reg_head\.offset_head\.conv\.(\w+)", r"distances.output.\1"),
        (r"reg_head\.scale\.(\d+)\.scale", r"level_scales.\1"),
    ),
    unused=(r"point_generator\..+",),
    transform=_one_scale,
)


def load_actionformer(model: PointDetector, state: Mapping[str, Any]) -> None:
    """Load ActionFormer's weights into a detector of the same size, with shared boundaries and attention.

    `state` is a state dict of the authors' code. Strict: raises `CheckpointError` that lists unknown and missing keys and wrong
    shapes, and leaves the model unchanged.
    """
    load_layout(ACTIONFORMER, model, state)
