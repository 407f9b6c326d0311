"""The formats that labels are exported to. Libraries that a format needs are imported when it is written."""

from microaction.export import boris, csv_tables, elan, fiftyone, mma52, webvtt, xlsx
from microaction.export.exporter import Exporter

EXPORTERS: dict[str, Exporter] = {
    "elan": elan.EXPORTER,
    "boris": boris.EXPORTER,
    "csv": csv_tables.EXPORTER,
    "xlsx": xlsx.EXPORTER,
    "webvtt": webvtt.EXPORTER,
    "fiftyone": fiftyone.EXPORTER,
    "mma52": mma52.EXPORTER,
}
