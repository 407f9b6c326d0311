"""The network alone, on whatever device is there: eager and compiled, float32 and bfloat16. Needs torch and nothing else.

`python -m tests.benchmarks.model [--clips 8] [--rounds 5]` prints clips per second, how many times that is the plain float32
way's, and its share of the fastest matrix product that was measured here in the same run. The ways take turns, so that a
machine's moods hit all of them; figures are medians. Compiling takes minutes and is not counted.
"""

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from microaction.models.inference import InferenceModel, compiled
from microaction.models.losses import JointEmbeddingLoss
from microaction.models.manet.network import MANet
from microaction.models.normalize import normalize_frames

SIDE, NUM_CLASSES, EMBEDDING_DIM = 224, 52, 300


class Statistics(NamedTuple):
    """Any will do: nothing here hangs on what is to be seen."""

    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    std: tuple[float, float, float] = (64.0, 64.0, 64.0)


STATISTICS = Statistics()
Step = Callable[[], object]


def inference_ways(frames_BTHWC: Tensor) -> dict[str, Step]:
    """The plain way is what a first version would be: the network as it is written, channels first, every branch."""
    device = frames_BTHWC.device
    plain = trained(device)
    folded = {dtype: InferenceModel(trained(device), STATISTICS, dtype) for dtype in (torch.float32, torch.bfloat16)}
    graphs = {dtype: compiled(model) for dtype, model in folded.items()}
    return {
        "eager, float32, as written": lambda: plain(normalize_frames(frames_BTHWC, STATISTICS).contiguous())[0],
        "eager, float32, folded, channels last": lambda: folded[torch.float32](frames_BTHWC),
        "eager, bfloat16, folded, channels last": lambda: folded[torch.bfloat16](frames_BTHWC),
        "compiled, float32": lambda: graphs[torch.float32](frames_BTHWC),
        "compiled, bfloat16": lambda: graphs[torch.bfloat16](frames_BTHWC),
    }


def training_ways(frames_BTHWC: Tensor) -> dict[str, Step]:
    return {
        "eager, float32, as written": training_step(frames_BTHWC, bf16=False, channels_last=False),
        "eager, float32, channels last": training_step(frames_BTHWC, bf16=False, channels_last=True),
        "eager, bfloat16, channels last": training_step(frames_BTHWC, bf16=True, channels_last=True),
        "compiled, bfloat16, channels last": training_step(frames_BTHWC, bf16=True, channels_last=True, compile=True),
    }


def training_step(
    frames_BTHWC: Tensor,
    *,
    bf16: bool,
    channels_last: bool,
    compile: bool = False,  # noqa: A002
) -> Step:
    """Normalizing, forward, loss, backward and the optimiser's step."""
    device = frames_BTHWC.device
    network = trained(device).train()
    if channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model: nn.Module = torch.compile(network) if compile else network  # type: ignore[assignment]
    loss = JointEmbeddingLoss(torch.randn(NUM_CLASSES, EMBEDDING_DIM)).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)
    target_B = torch.arange(len(frames_BTHWC), device=device) % NUM_CLASSES

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        frames_BTCHW = normalize_frames(frames_BTHWC, STATISTICS)
        if not channels_last:
            frames_BTCHW = frames_BTCHW.contiguous()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits_BK, embedding_BD = model(frames_BTCHW)
        loss(logits_BK.float(), embedding_BD.float(), target_B).backward()
        optimizer.step()

    return step


def trained(device: torch.device) -> MANet:
    """A model whose batch norms have statistics, as after training."""
    torch.manual_seed(0)
    model = MANet(NUM_CLASSES, embedding_dim=EMBEDDING_DIM)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model.to(device).eval()


def seconds(way: Step, device: torch.device) -> float:
    synchronize(device)
    started_s = time.perf_counter()
    way()
    synchronize(device)
    return time.perf_counter() - started_s


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def medians(ways: dict[str, Step], rounds: int, device: torch.device) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 2):  # compiling, and what the first calls allocate, is not counted
        for name, way in ways.items():
            taken_s = seconds(way, device)
            if turn >= 2:
                taken[name].append(taken_s)
    return {name: statistics.median(values) for name, values in taken.items()}


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of the fastest of a few square matrix products."""
    sizes = (4096, 8192) if device.type == "cuda" else (1024, 2048, 4096)
    best = 0.0
    for size in sizes:
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in "ab")
        with torch.inference_mode():
            taken_s = min(seconds(lambda a=a, b=b: a @ b, device) for _ in range(5))  # type: ignore[misc]
        best = max(best, 2 * size**3 / taken_s)
    return best


def flops_of(way: Step) -> int:
    with FlopCounterMode(display=False) as counter:
        way()
    return int(counter.get_total_flops())


def print_table(
    title: str, ways: dict[str, Step], num_clips: int, rounds: int, peak: float, device: torch.device
) -> None:
    flops = flops_of(next(iter(ways.values())))
    taken_s = medians(ways, rounds, device)
    plain_s = next(iter(taken_s.values()))
    print(f"\n{title}: {flops / num_clips / 1e9:.1f} GFLOP per clip")
    print(f"{'way':42}{'clips/s':>9}{'times the first':>17}{'of the peak':>13}")
    for name, each_s in taken_s.items():
        share = flops / each_s / peak
        print(f"{name:42}{num_clips / each_s:9.2f}{plain_s / each_s:16.2f}×{share:12.0%}")


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, help="clips per forward pass; default: 8 on a CPU, 64 on a GPU")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    num_clips = arguments.clips or (64 if device.type == "cuda" else 8)
    frames_BTHWC = torch.randint(0, 256, (num_clips, 8, SIDE, SIDE, 3), dtype=torch.uint8, device=device)
    peaks = {dtype: peak_flops(device, dtype) for dtype in (torch.float32, torch.bfloat16)}
    print(f"{machine(device)} · torch {torch.__version__} · {num_clips} clips of 8 frames of {SIDE} pixels")
    print(", ".join(f"{dtype} product {flops / 1e12:.2f} TFLOP/s" for dtype, flops in peaks.items()))
    peak = max(peaks.values())
    with torch.inference_mode():
        print_table("Inference", inference_ways(frames_BTHWC), num_clips, arguments.rounds, peak, device)
    print_table("Training step", training_ways(frames_BTHWC), num_clips, arguments.rounds, peak, device)


if __name__ == "__main__":
    main()
