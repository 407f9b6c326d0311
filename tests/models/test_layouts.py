"""Published weights of every layout become the same network. The keys are spelled out here, not taken from the rules."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from microaction.models import CheckpointError, Inputs, create_model, load_checkpoint, load_published
from microaction.models.families import find_importer
from microaction.models.initial import load_initial_weights
from microaction.models.normalize import normalize_frames
from microaction.models.video_classifier import VideoClassifier
from tests.models.networks import SIDE, SMALL_NETWORKS, normal_frames, small_network

State = dict[str, Tensor]


def renamed(state: State, *rules: tuple[str, str]) -> State:
    """Apply all rules to all keys, one after the other."""
    result = {}
    for name, value in state.items():
        key = name
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        result[key] = value
    return result


HEAD = (r"^action\.", "cls_head.fc_cls.")
CONVOLUTIONS = (
    (r"^(backbone\.(?:\w+_path\.)?)conv1\.weight", r"\1conv1.conv.weight"),
    (r"^(backbone\.(?:\w+_path\.)?)bn1\.", r"\1conv1.bn."),
    (r"(layer\d\.\d+\.)conv(\d)\.weight", r"\1conv\2.conv.weight"),
    (r"(layer\d\.\d+\.)bn(\d)\.", r"\1conv\2.bn."),
    (r"downsample\.0\.", "downsample.conv."),
    (r"downsample\.1\.", "downsample.bn."),
)


def swin_of_torchvision(state: State) -> State:
    stages = renamed(
        state,
        (r"^backbone\.", ""),
        (r"^action\.", "head."),
        (r"mlp\.fc1", "mlp.0"),
        (r"mlp\.fc2", "mlp.3"),
    )
    result = {}
    for key, value in stages.items():
        match = re.match(r"layers\.(\d+)\.(blocks|downsample)\.(.+)", key)
        if match and match[2] == "blocks":
            result[f"features.{2 * int(match[1])}.{match[3]}"] = value
        elif match:
            result[f"features.{2 * int(match[1]) + 1}.{match[3]}"] = value
        else:
            result[key] = value
    return result | {"features.0.0.attn.relative_position_index": torch.zeros(3)}


def vit_of_transformers(state: State) -> State:
    result = renamed(
        state,
        (r"^action\.", "classifier."),
        (r"^backbone\.patch_embed\.", "videomae.embeddings.patch_embeddings.projection."),
        (r"^backbone\.fc_norm\.", "fc_norm."),
        (r"^backbone\.blocks\.(\d+)\.", r"videomae.encoder.layer.\1."),
        (r"\.norm1\.", ".layernorm_before."),
        (r"\.norm2\.", ".layernorm_after."),
        (r"\.attn\.proj\.", ".attention.output.dense."),
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
        (r"\.attn\.q_bias", ".attention.attention.query.bias"),
        (r"\.attn\.v_bias", ".attention.attention.value.bias"),
    )
    for key in [key for key in result if key.endswith(".attn.qkv.weight")]:
        for part, weight in zip(("query", "key", "value"), result.pop(key).chunk(3), strict=True):
            result[key.replace(".attn.qkv.weight", f".attention.attention.{part}.weight")] = weight
    return result


TIMESFORMER = (
    (r"\.(time|space)_attn\.proj\.", r".\1_attn.out_proj."),
    (r"blocks\.(\d+)\.", r"transformer_layers.layers.\1."),
    (r"\.time_norm\.", ".attentions.0.norm."),
    (r"\.space_norm\.", ".attentions.1.norm."),
    (r"\.time_attn\.qkv\.", ".attentions.0.attn.in_proj_"),
    (r"\.space_attn\.qkv\.", ".attentions.1.attn.in_proj_"),
    (r"\.time_attn\.", ".attentions.0.attn."),
    (r"\.space_attn\.", ".attentions.1.attn."),
    (r"\.time_fc\.", ".attentions.0.temporal_fc."),
    (r"(layers\.\d+)\.norm\.", r"\1.ffns.0.norm."),
    (r"\.mlp\.fc1\.", ".ffns.0.layers.0.0."),
    (r"\.mlp\.fc2\.", ".ffns.0.layers.1."),
    (r"patch_embed\.", "patch_embed.projection."),
)

LAYOUTS: dict[tuple[str, str], Callable[[State], State]] = {
    ("c3d", "mmaction2"): lambda state: renamed(state, HEAD, (r"(conv\d[ab])\.", r"\1.conv.")),
    ("i3d-r50", "mmaction2"): lambda state: renamed(state, HEAD, *CONVOLUTIONS),
    ("slowfast-r50-4x16", "mmaction2"): lambda state: renamed(
        state, HEAD, *CONVOLUTIONS, (r"_lateral\.weight", "_lateral.conv.weight")
    ),
    ("slowfast-r50-8x8", "mmaction2"): lambda state: renamed(
        state, HEAD, *CONVOLUTIONS, (r"_lateral\.weight", "_lateral.conv.weight")
    ),
    ("tin-r50", "mmaction2"): lambda state: renamed(
        state,
        HEAD,
        *CONVOLUTIONS,
        (r"(layer\d\.\d+)\.conv1\.conv\.weight", r"\1.conv1.conv.net2.weight"),
        (r"\.interlace\.offset_", ".conv1.conv.net1.offset_net."),
        (r"\.interlace\.gate_", ".conv1.conv.net1.weight_net."),
    ),
    ("tsm", "mmaction2"): lambda state: renamed(
        state, HEAD, *CONVOLUTIONS, (r"(layer\d\.\d+)\.conv1\.conv\.weight", r"\1.conv1.conv.net.weight")
    ),
    ("tsn", "mmaction2"): lambda state: renamed(state, HEAD, *CONVOLUTIONS),
    ("timesformer", "mmaction2"): lambda state: renamed(state, HEAD, *TIMESFORMER),
    ("timesformer", "transformers"): lambda state: renamed(
        state,
        (r"^action\.", "classifier."),
        (r"^backbone\.cls_token", "timesformer.embeddings.cls_token"),
        (r"^backbone\.pos_embed", "timesformer.embeddings.position_embeddings"),
        (r"^backbone\.time_embed", "timesformer.embeddings.time_embeddings"),
        (r"^backbone\.patch_embed\.", "timesformer.embeddings.patch_embeddings.projection."),
        (r"^backbone\.norm\.", "timesformer.layernorm."),
        (r"^backbone\.blocks\.(\d+)\.norm\.", r"timesformer.encoder.layer.\1.layernorm_after."),
        (r"^backbone\.blocks\.", "timesformer.encoder.layer."),
        (r"\.time_norm\.", ".temporal_layernorm."),
        (r"\.space_norm\.", ".layernorm_before."),
        (r"\.time_attn\.qkv\.", ".temporal_attention.attention.qkv."),
        (r"\.time_attn\.proj\.", ".temporal_attention.output.dense."),
        (r"\.space_attn\.qkv\.", ".attention.attention.qkv."),
        (r"\.space_attn\.proj\.", ".attention.output.dense."),
        (r"\.time_fc\.", ".temporal_dense."),
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
    ),
    ("timesformer", "authors"): lambda state: renamed(
        state,
        (r"^action\.", "model.head."),
        (r"^backbone\.", "model."),
        (r"patch_embed\.", "patch_embed.proj."),
        (r"(blocks\.\d+)\.norm\.", r"\1.norm2."),
        (r"\.space_norm\.", ".norm1."),
        (r"\.time_norm\.", ".temporal_norm1."),
        (r"\.space_attn\.", ".attn."),
        (r"\.time_attn\.", ".temporal_attn."),
        (r"\.time_fc\.", ".temporal_fc."),
    ),
    ("video-swin-t", "mmaction2"): lambda state: (
        renamed(state, HEAD, (r"^backbone\.norm\.", "backbone.norm3."))
        | {"backbone.layers.0.blocks.0.attn.relative_position_index": torch.zeros(3)}
    ),
    ("video-swin-t", "torchvision"): swin_of_torchvision,
    ("uniformer-s", "mmaction2"): lambda state: renamed(state, HEAD),
    ("uniformer-s", "authors"): lambda state: renamed(state, (r"^action\.", "head."), (r"^backbone\.", "")),
    ("vit-s", "mmaction2"): lambda state: (
        renamed(
            state,
            HEAD,
            (r"patch_embed\.", "patch_embed.projection."),
            (r"mlp\.fc1\.", "mlp.layers.0.0."),
            (r"mlp\.fc2\.", "mlp.layers.1."),
        )
        | {"backbone.pos_embed": torch.zeros(1)}
    ),
    ("vit-s", "authors"): lambda state: renamed(
        state, (r"^action\.", "head."), (r"^backbone\.", ""), (r"patch_embed\.", "patch_embed.proj.")
    ),
    ("vit-s", "safetensors of the hub"): lambda state: renamed(
        state, (r"^action\.", "model.head."), (r"^backbone\.", "model."), (r"patch_embed\.", "patch_embed.proj.")
    ),
    ("vit-s", "transformers"): vit_of_transformers,
}


@pytest.mark.parametrize(("preset", "layout"), LAYOUTS)
def test_published_weights_give_the_published_outputs(preset: str, layout: str) -> None:
    source = small_network(preset)
    state = LAYOUTS[preset, layout](source.state_dict())
    target = create_model(preset, **SMALL_NETWORKS[preset]).eval()
    frames = Inputs(normal_frames(source))
    load_published(target, state)
    with torch.inference_mode():
        torch.testing.assert_close(target(frames).logits, source(frames).logits, rtol=0, atol=0)
    lacking = next(key for key in state if re.search(r"(head|cls|classifier)\.weight", key))
    del state[lacking]
    state["stranger.weight"] = torch.zeros(1)
    message = r"2 keys do not fit:\n  unknown: stranger\.weight\n  missing: action\.weight"
    with pytest.raises(CheckpointError, match=message):
        load_published(target, state)


@pytest.mark.parametrize(("preset", "layout"), [key for key in LAYOUTS if key[1] == "mmaction2"])
def test_the_configuration_is_derived_from_the_weights(preset: str, layout: str) -> None:
    source = small_network(preset)
    state = LAYOUTS[preset, layout](source.state_dict())
    if preset.startswith("video-swin"):
        pytest.skip("the small one has two stages; published ones have four")
    importer = find_importer(state)[1]
    assert importer.config_of is not None
    config = importer.config_of(state)
    assert config.num_classes == 52
    expected = create_model(preset, **SMALL_NETWORKS[preset])
    assert config.family == expected.family
    for name in ("width", "widths", "depth", "depths", "ratio", "lateral_kernel", "hidden", "se", "shift"):
        if name in SMALL_NETWORKS[preset]:
            assert getattr(config, name) == SMALL_NETWORKS[preset][name], name


def inflated_by_repeating(weight: Tensor, frames: int) -> Tensor:
    return torch.stack([weight] * frames, dim=2) / frames


def test_i3d_repeats_2d_weights_in_time() -> None:
    source = small_network("i3d-r50")
    flat: State = {}
    for name, value in source.state_dict().items():
        if name.startswith("backbone."):
            flat[name.removeprefix("backbone.")] = value.mean(dim=2) if value.ndim == 5 else value
    flat |= {"fc.weight": torch.zeros(1000, 3), "fc.bias": torch.zeros(1000)}
    target = create_model("i3d-r50", **SMALL_NETWORKS["i3d-r50"])
    head = target.state_dict()["action.weight"].clone()
    load_published(target, flat)
    for name, value in target.state_dict().items():
        if name.startswith("backbone.") and value.ndim == 5:
            expected = inflated_by_repeating(flat[name.removeprefix("backbone.")], value.shape[2])
            torch.testing.assert_close(value, expected)
    assert torch.equal(target.state_dict()["action.weight"], head)


def test_swin_repeats_patches_and_tables_and_resizes_other_windows() -> None:
    preset = "video-swin-t"
    source, target = small_network(preset), create_model(preset, **SMALL_NETWORKS[preset])
    for side in (13, 9):
        flat: State = {"head.weight": torch.zeros(1000, 3)}
        for name, value in source.state_dict().items():
            if not name.startswith("backbone."):
                continue
            key = name.removeprefix("backbone.")
            if key == "patch_embed.proj.weight":
                flat[key] = value[:, :, 0]
            elif key.endswith("bias_table"):
                flat[key] = torch.randn(side**2, value.shape[1], generator=torch.Generator().manual_seed(len(key)))
            else:
                flat[key] = value
        load_published(target, flat)
        loaded = target.state_dict()
        patch = flat["patch_embed.proj.weight"]
        torch.testing.assert_close(loaded["backbone.patch_embed.proj.weight"], inflated_by_repeating(patch, 2))
        table = loaded["backbone.layers.0.blocks.0.attn.relative_position_bias_table"]
        slices = table.view(15, 169, -1)
        assert all(torch.equal(each, slices[0]) for each in slices)
        given = flat["layers.0.blocks.0.attn.relative_position_bias_table"]
        if side == 13:
            torch.testing.assert_close(slices[0], given)
        else:
            image = torch.nn.functional.interpolate(given.T.reshape(1, -1, 9, 9), size=(13, 13), mode="bicubic")
            torch.testing.assert_close(slices[0], image[0].flatten(1).T)


def test_uniformer_puts_2d_weights_into_the_middle() -> None:
    preset = "uniformer-s"
    source, target = small_network(preset), create_model(preset, **SMALL_NETWORKS[preset])
    flat = {
        name.removeprefix("backbone."): value[:, :, value.shape[2] // 2] if value.ndim == 5 else value
        for name, value in source.state_dict().items()
        if name.startswith("backbone.")
    }
    load_published(target, flat)
    for name, value in target.state_dict().items():
        if name.startswith("backbone.") and value.ndim == 5:
            middle = value.shape[2] // 2
            torch.testing.assert_close(value[:, :, middle], flat[name.removeprefix("backbone.")])
            assert value.count_nonzero() == value[:, :, middle].count_nonzero(), "zeros around it"


def test_heads_of_other_classes_stay_as_they_are_in_initial_weights(tmp_path: Path) -> None:
    source = small_network("vit-s", num_classes=400)
    target = create_model("vit-s", **SMALL_NETWORKS["vit-s"])
    before = target.state_dict()["action.weight"].clone()
    path = str(tmp_path / "k400.pth")
    torch.save({"model": LAYOUTS["vit-s", "authors"](source.state_dict())}, path)
    with pytest.raises(CheckpointError, match=r"wrong shape: head\.weight \(400, 24\), the model has \(52, 24\)"):
        load_published(target, torch.load(path, weights_only=True))
    load_initial_weights(target, path)
    assert torch.equal(target.state_dict()["action.weight"], before)
    assert torch.equal(
        target.state_dict()["backbone.blocks.0.mlp.fc1.weight"], source.state_dict()["backbone.blocks.0.mlp.fc1.weight"]
    )


def test_a_pretrained_encoder_initializes_all_but_the_head() -> None:
    source = small_network("vit-s")
    state = {
        f"encoder.{name.removeprefix('backbone.').replace('patch_embed.', 'patch_embed.proj.')}": value
        for name, value in source.state_dict().items()
        if name.startswith("backbone.") and "fc_norm" not in name
    }
    state |= {"encoder.norm.weight": torch.ones(24), "decoder.head.weight": torch.ones(3), "mask_token": torch.ones(1)}
    target = create_model("vit-s", **SMALL_NETWORKS["vit-s"])
    assert isinstance(target, VideoClassifier)
    load_published(target, state)
    for name, value in target.state_dict().items():
        if name.startswith("backbone.blocks"):
            assert torch.equal(value, source.state_dict()[name])


def test_weights_of_another_family_are_refused_with_what_is_known() -> None:
    state = LAYOUTS["vit-s", "authors"](small_network("vit-s").state_dict())
    with pytest.raises(CheckpointError, match=r"no known layout \(a C3D as mmaction2 saves it\)"):
        load_published(create_model("c3d", **SMALL_NETWORKS["c3d"]), state)


def test_a_file_of_published_weights_is_a_checkpoint_with_its_references_preprocessing(tmp_path: Path) -> None:
    source = small_network("video-swin-t", depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), num_frames=32)
    path = tmp_path / "swin.pth"
    torch.save({"state_dict": LAYOUTS["video-swin-t", "mmaction2"](source.state_dict())}, path)
    checkpoint = load_checkpoint(str(path))
    preprocessing = checkpoint.config.preprocessing
    assert (preprocessing.sampling, preprocessing.frame_interval, preprocessing.views) == ("consecutive", 2, 4)
    assert checkpoint.config.num_sampled == 4 * 32
    assert "non-commercial" in checkpoint.config.license
    frames_BTHWC = torch.randint(0, 256, (1, 4 * 32, SIDE, SIDE, 3), dtype=torch.uint8)
    of_views = [
        source(Inputs(normalize_frames(frames, preprocessing))).logits.softmax(dim=1)
        for frames in frames_BTHWC.view(4, 1, 32, SIDE, SIDE, 3)
    ]
    torch.testing.assert_close(checkpoint.classify(frames_BTHWC), torch.stack(of_views).mean(dim=0))


def test_a_network_of_other_classes_does_not_label(tmp_path: Path) -> None:
    source = small_network("uniformer-s", num_classes=400)
    path = tmp_path / "k400.pth"
    torch.save(LAYOUTS["uniformer-s", "mmaction2"](source.state_dict()), path)
    with pytest.raises(
        CheckpointError, match=r"a network of 400 classes, not of the 52 actions: train from it \(--init\)"
    ):
        load_checkpoint(str(path))
