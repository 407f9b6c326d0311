"""The reference of the Parquet tables that people read, from the schemas."""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from docs.scripts.markdown import code, table
from microaction import schema

PAGE = """# Output tables

`microaction label` publishes six tables as Parquet. Locally `OUT/windows`, `OUT/activity`, `OUT/events`, `OUT/people`,
`OUT/videos` and `OUT/failures` are links to the latest publication; in object storage `OUT/_publication.json` names each
table's folder ([files](files.md#an-output-folder)). A table is a folder of files, and every reader of Parquet data sets
takes it as one table:

```python
import duckdb
import pandas as pd

events = pd.read_parquet("OUT/events")
windows = duckdb.sql("SELECT * FROM 'OUT/windows/*.parquet' WHERE NOT abstained").df()
```

Times are seconds on the video's own timeline: 0 is where a player starts the file. Spans are half-open: `[start_s,
end_s)`. Together, what is labeled and `failures/` cover every second of every readable video, and of every person in it.
Files carry metadata: `microaction.schema_version` ({version}), `microaction.run` (what identifies the run),
`microaction.events` (the thresholds), `microaction.people` (where people come from, with the detector's SHA-256) and
`microaction.versions`.

The names of the actions and body parts are those of MA-52: see [actions](actions.md).

{tables}
## catalog

`microaction catalog ARCHIVE catalog.parquet` writes one row per file that is, or claims to be, a video. Where `error`
is not null the file cannot be read, and `reason` says why. The `region_…` columns are null in a new catalog: fill them
in to limit what the network sees of a video ([regions](../guides/label-an-archive.md#regions)).

{catalog}

## people.parquet

`microaction people ARCHIVE OUT` writes this list, and `label --people` takes it: a row per video, person and span, by
video, person and time. What you rename, merge, delete or move in it is labeled so ([several
people](../guides/label-an-archive.md#several-people)). A span with an `error` is not labeled. A list made by hand needs
only the columns that are not nullable.

{people_list}
"""
INTRODUCTIONS = {
    "windows": "A row per window of a classifier, sorted by video, person and time. A file is several row groups, of some "
    "videos each. Empty where a detector labels.",
    "activity": "A row for at most a minute of a person: a detector's probability of every action at every step, by video, "
    "person and time. Empty where a classifier labels. As an array of steps × actions: `np.reshape(row['activity'], "
    "(row['num_steps'], 52)) / 255`.",
    "events": "A row per event: the windows of one video merged over time, for each action separately, or what a detector "
    "found from its thresholds on. In each file sorted by action, video, person and time, with a row group per action, so that "
    "a filter like `action_id = 9` reads little.",
    "people": "A row per person of a video, by video and person: how long and where the person is seen, and what the person "
    "does. Numbers mean nothing beyond one video. With `--people off`, and for videos with a region, person 0 is the whole frame "
    "or the region. See [several people](../guides/label-an-archive.md#several-people).",
    "videos": "A row per video of the catalog. Rates are per minute that windows cover. Where events of one body part "
    "overlap, their time counts once in `body_parts`. `SELECT video, unnest(actions, recursive := true) FROM "
    "'OUT/videos/*.parquet'` is a row per video and action.",
    "failures": "A row per span that carries no labels, of a person or, where `person` is null, of the video, with the "
    "stage, kind and reason. The kinds are on the page of [exit codes](exit-codes.md#kinds-of-failures).",
}
NAMES = {"double": "float64", "float": "float32"}


def render() -> str:
    """Return the page."""
    assert list(INTRODUCTIONS) == list(schema.PUBLIC_TABLES), "every table has an introduction"
    tables = [
        f"## {name}\n\n{INTRODUCTIONS[name]}\n\n{_columns(name, columns)}\n"
        for name, columns in schema.PUBLIC_TABLES.items()
    ]
    return PAGE.format(
        version=schema.SCHEMA_VERSION,
        tables="\n".join(tables),
        catalog=_columns("catalog", schema.CATALOG),
        people_list=_columns("people.parquet", schema.PEOPLE_LIST),
    )


def _columns(name: str, columns: pa.Schema) -> str:
    rows = list(_rows(name, columns))
    if any(description for *_, description in rows):
        return table(("column", "type", "description"), rows)
    return table(("column", "type"), [row[:2] for row in rows])


def _rows(name: str, columns: Any, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    for field in columns:
        shown = _type(field.type) + (", nullable" if field.nullable else "")
        column = prefix + field.name
        yield code(column), shown, _description(name, column)
        if pa.types.is_list(field.type) and pa.types.is_struct(field.type.value_type):
            yield from _rows(name, field.type.value_type, f"{column}[].")


def _type(arrow_type: pa.DataType) -> str:
    if pa.types.is_dictionary(arrow_type):
        return _type(arrow_type.value_type)
    if pa.types.is_list(arrow_type):
        return (
            "list of structs"
            if pa.types.is_struct(arrow_type.value_type)
            else f"list of {_type(arrow_type.value_type)}"
        )
    return NAMES.get(str(arrow_type), str(arrow_type))


def _description(name: str, column: str) -> str:
    """Return what the schema says of a column."""
    docs: Mapping[str, Any] = getattr(schema, "COLUMN_DOCS", {})
    of_table = docs.get(name, {})
    found = of_table.get(column) if isinstance(of_table, Mapping) else None
    return str(found or docs.get(column) or docs.get(column.rsplit(".", 1)[-1]) or "")
