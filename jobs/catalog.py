"""`python -m jobs.catalog ARCHIVE OUT`: which videos an archive holds, and what each of them is."""

import pyarrow.compute as pc
from rich.table import Table

from jobs.cli import console, parse_settings, reported_errors, running_ray, shown_progress
from microaction import storage
from microaction.config import CatalogSettings
from microaction.labeling.catalog import make_catalog, write_catalog


def main() -> None:
    settings = parse_settings(CatalogSettings)
    with reported_errors(), running_ray(), shown_progress("reading videos") as show:
        storage.require_writable(settings.out)
        catalog = make_catalog(
            settings.archive, on_video=lambda done, total: show(done, total, f"{done} of {total} videos")
        )
        write_catalog(catalog, settings.out)
    unreadable = catalog.filter(pc.is_valid(catalog["error"]))
    summary = Table(title="Catalog", show_header=False)
    summary.add_row("videos", str(len(catalog)))
    summary.add_row("hours", f"{(pc.sum(catalog['duration_s']).as_py() or 0) / 3600:.2f}")
    summary.add_row("cannot be read", str(len(unreadable)))
    summary.add_row("written to", settings.out)
    console.print(summary)
    for row in unreadable.to_pylist():
        console.print(f"{row['video']}: {row['reason']}", markup=False, style="yellow", soft_wrap=True)


if __name__ == "__main__":
    main()
