"""`microaction pack …`: encode labeled clips again, so that training reads them at a fraction of the cost."""

from typing import TYPE_CHECKING

from rich.table import Table

from microaction.cli.app import console, parse_settings, reported_errors, running_ray, shown_progress
from microaction.clips.settings import PackSettings

if TYPE_CHECKING:
    from microaction.clips.pack import PackResult


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    settings = parse_settings(PackSettings, argv)
    with reported_errors(), running_ray(), shown_progress("packing") as show:
        from microaction.clips.pack import pack_clips

        packed = pack_clips(settings, on_progress=lambda done, total: show(done, total, f"{done} of {total} clips"))
    console.print(_summary_table(packed, settings.out))
    for notice in packed.notices:
        console.print(notice, markup=False, style="yellow", soft_wrap=True)
    for row in packed.failures:
        console.print(f"{row['source']}: {row['reason']}", markup=False, style="yellow", soft_wrap=True)


def _summary_table(packed: "PackResult", out: str) -> Table:
    from microaction.clips.pack import INSTANCES_FILE, TABLE_FILE, VIDEOS_FOLDER

    table = Table(title="Proxies", show_header=False)
    list_file = TABLE_FILE
    if packed.num_instances is None:
        table.add_row("clips", str(packed.num_clips))
    else:
        table.add_row("videos", str(packed.num_clips))
        table.add_row("instances of actions", str(packed.num_instances))
        list_file = INSTANCES_FILE
    table.add_row("packed before", str(packed.num_packed_before))
    table.add_row("cut to one of several people", str(packed.num_cut))
    table.add_row("unreadable", str(len(packed.failures)))
    table.add_row("MiB", f"{packed.num_bytes / 2**20:.1f}")
    table.add_row("lowest luma PSNR", f"{packed.lowest_psnr_db:.1f} dB")
    table.add_row("to train on them", f"--train-list {out}/{list_file} --train-videos {out}/{VIDEOS_FOLDER}")
    return table
