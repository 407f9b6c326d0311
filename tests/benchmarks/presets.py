"""Every network at full size, on whatever device is there: clips per second as written and in its form for inference.

`python -m tests.benchmarks.presets [NAME …] [--clips N] [--rounds 3] [--compile]`. "As written" is eager float32; "ours" is what
labeling runs: the family's form for inference, in bfloat16 where the device multiplies it faster, and compiled with `--compile`
(a minute or more each, not counted). The two take turns; figures are medians. Needs torch and nothing else.
"""

import argparse

import torch
from torch import Tensor

from microaction.models import FAMILIES, PRESETS, build_model
from microaction.models.classifier import preferred_precision
from microaction.models.conventions import statistics_of
from microaction.models.inference import compiled
from microaction.models.inputs import prepare_inputs
from microaction.models.settings import ModelConfig, parse_model_config
from microaction.preprocessing import Preprocessing
from tests.benchmarks.model import Step, machine, medians


def clips_for(config: ModelConfig, pixels: Preprocessing, num_clips: int, device: torch.device) -> list[Tensor]:
    """Frames [B, T, H, W, 3], and for networks that see skeletons keypoints [B, 1, T, K, 3]."""
    size = (num_clips, config.num_rgb_frames, pixels.side, pixels.side, 3)
    inputs = [torch.randint(0, 256, size, dtype=torch.uint8, device=device)]
    if config.num_pose_frames:
        num_keypoints = getattr(config, "num_keypoints", 0)
        keypoints = torch.rand(num_clips, 1, config.num_pose_frames, num_keypoints, 3, device=device)
        inputs.append(keypoints * torch.tensor([pixels.side, pixels.side, 1.0], device=device))
    return inputs


def ways_of(name: str, num_clips: int, device: torch.device, *, compile: bool) -> dict[str, Step]:  # noqa: A002
    config = parse_model_config(name)
    pixels = Preprocessing.model_validate(statistics_of(config))
    inputs = clips_for(config, pixels, num_clips, device)
    model = build_model(config).to(device).eval()
    dtype = torch.bfloat16 if preferred_precision(device.type) == "bf16" else torch.float32
    ours = FAMILIES[config.family].for_inference(model, pixels, dtype)
    if compile:
        ours = compiled(ours)  # type: ignore[assignment]
    keypoints = inputs[1] if len(inputs) > 1 else None
    return {
        "as written": lambda: model(prepare_inputs(model, inputs[0], keypoints, pixels)).logits,
        "ours": lambda: ours(*inputs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks; default: all")
    parser.add_argument("--clips", type=int, help="clips per forward pass; default: 2 on a CPU, 32 on a GPU")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    num_clips = arguments.clips or (32 if device.type == "cuda" else 2)
    how = f"{preferred_precision(device.type)}{', compiled' if arguments.compile else ''}"
    print(f"{machine(device)} · torch {torch.__version__} · {num_clips} clips per pass · ours: {how}")
    print(f"{'network':22}{'as written, clips/s':>21}{'ours, clips/s':>15}{'ratio':>8}")
    for name in arguments.names or PRESETS:
        with torch.inference_mode():
            ways = ways_of(name, num_clips, device, compile=arguments.compile)
            plain_s, ours_s = medians(ways, arguments.rounds, device).values()
        print(f"{name:22}{num_clips / plain_s:21.2f}{num_clips / ours_s:15.2f}{plain_s / ours_s:7.2f}×", flush=True)


if __name__ == "__main__":
    main()
