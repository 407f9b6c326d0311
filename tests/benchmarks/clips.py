"""Clips per core-second for training: from the originals and from their proxies.

`python -m tests.benchmarks.clips` makes clips of MA-52's size and length for itself.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from microaction.clips.sample import Augmentation, Sample, Sampling, decode_clip, load_clip
from microaction.preprocessing import Preprocessing
from microaction.video.proxy import encode_proxy
from tests.benchmarks.timing import console, cpu_name, medians, print_rates
from tests.benchmarks.videos import write_long_video

NUM_CLIPS, CLIP_S, SIZE = 12, 3, (1296, 1080)
SAMPLING = Sampling(8, Preprocessing(), Augmentation(seed=0, epoch=0, crop_scales=(1.0, 0.875, 0.75, 0.66)))
ROUNDS = 5


def decode(paths: Sequence[Path]) -> None:
    for index, path in enumerate(paths):
        decode_clip(str(path), index, SAMPLING)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        originals = [Path(folder) / f"{number}.mp4" for number in range(NUM_CLIPS)]
        proxies = [path.with_suffix(".proxy.mp4") for path in originals]
        write_long_video(originals[0], duration_s=CLIP_S, size=SIZE, loop_s=CLIP_S)
        proxies[0].write_bytes(encode_proxy(originals[0], 256).data)
        for one, others in ((originals[0], originals[1:]), (proxies[0], proxies[1:])):
            for other in others:
                other.write_bytes(one.read_bytes())
        decode(originals[:1])  # what is loaded with the first call counts for nobody
        taken_s = medians({"proxies": lambda: decode(proxies), "originals": lambda: decode(originals)}, ROUNDS)
        title = f"{SIZE[0]}×{SIZE[1]} H.264 clips of {CLIP_S} s, 8 frames each · {cpu_name()}"
        print_rates(title, "clips", NUM_CLIPS, taken_s, "proxies")
        sizes = [path.stat().st_size / 2**20 for path in (originals[0], proxies[0])]
        console.print(f"an original takes {sizes[0]:.1f} MiB, its proxy {sizes[1]:.1f} MiB")
        load_clip(str(proxies[0]), 0, SAMPLING)
        taken_ms: dict[Callable[[str, int, Sampling], Sample], list[float]] = {decode_clip: [], load_clip: []}
        for _ in range(ROUNDS):
            for read, each_ms in taken_ms.items():
                for index, path in enumerate(proxies):
                    started = time.perf_counter()
                    read(str(path), index, SAMPLING)
                    each_ms.append(1e3 * (time.perf_counter() - started))
        here_ms, apart_ms = (statistics.median(each_ms) for each_ms in taken_ms.values())
        console.print(f"a proxy is read in {here_ms:.1f} ms, by a process of its own in {apart_ms:.1f} ms")


if __name__ == "__main__":
    main()
