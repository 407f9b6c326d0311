"""`microaction catalog ARCHIVE OUT.parquet`: which videos an archive holds, and what each of them is."""

import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from microaction.cli.app import console, parse_settings, reported_errors, running_ray, shown_progress
from microaction.labeling.settings import CatalogSettings


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    settings = parse_settings(CatalogSettings, argv)
    with reported_errors(), running_ray(), shown_progress("reading videos") as show:
        from microaction import storage
        from microaction.labeling.catalog import PassedOver, make_catalog, write_catalog

        storage.check_writable(settings.out)
        catalog = make_catalog(
            settings.archive, on_video=lambda done, total: show(done, total, f"{done} of {total} files")
        )
        write_catalog(catalog, settings.out)
    _print_summary(catalog, str(PassedOver.of(catalog)), settings.out)


def _print_summary(catalog: pa.Table, passed_over: str, out: str) -> None:
    unreadable = catalog.filter(pc.is_valid(catalog["error"]))
    summary = Table(title="Catalog", show_header=False)
    summary.add_row("videos", str(len(catalog)))
    summary.add_row("hours", f"{(pc.sum(catalog['duration_s']).as_py() or 0) / 3600:.2f}")
    summary.add_row("unreadable", str(len(unreadable)))
    summary.add_row("passed over", passed_over)
    summary.add_row("written to", out)
    console.print(summary)
    for row in unreadable.to_pylist():
        console.print(f"{row['video']}: {row['reason']}", markup=False, style="yellow", soft_wrap=True)
