"""`python -m jobs.pack …`: encodes labelled clips once, so that training reads them at a fraction of the cost."""

from rich.table import Table

from jobs.cli import console, parse_settings, reported_errors, running_ray, shown_progress
from microaction.clips.pack import TABLE_FILE, VIDEOS_FOLDER, Packed, pack_clips
from microaction.config import PackSettings


def main() -> None:
    settings = parse_settings(PackSettings)
    with reported_errors(), running_ray(), shown_progress("packing") as show:
        packed = pack_clips(settings, on_progress=lambda done, total: show(done, total, f"{done} of {total} clips"))
    console.print(summary_table(packed, settings.out))
    for row in packed.failures:
        console.print(f"{row['source']}: {row['reason']}", markup=False, style="yellow", soft_wrap=True)


def summary_table(packed: Packed, out: str) -> Table:
    table = Table(title="Proxies", show_header=False)
    table.add_row("clips", str(packed.num_clips))
    table.add_row("packed before", str(packed.num_packed_before))
    table.add_row("cannot be read", str(len(packed.failures)))
    table.add_row("MiB", f"{packed.num_bytes / 2**20:.1f}")
    table.add_row("lowest luma PSNR", f"{packed.lowest_psnr_db:.1f} dB")
    table.add_row("to train on them", f"--train-list {out}/{TABLE_FILE} --train-videos {out}/{VIDEOS_FOLDER}")
    return table


if __name__ == "__main__":
    main()
