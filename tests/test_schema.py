"""The descriptions of the columns, from which the documentation of the tables is generated."""

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pytest

from microaction.schema import CATALOG, COLUMN_DOCS, PUBLIC_TABLES


def names_of(fields: Iterable[pa.Field]) -> Iterator[str]:
    """Yield the names of the columns, and those of the fields of structs inside them."""
    for field in fields:
        yield field.name
        if pa.types.is_list(field.type) and pa.types.is_struct(field.type.value_type):
            yield from names_of(field.type.value_type)


def test_every_column_has_a_description() -> None:
    columns = {name for table in (*PUBLIC_TABLES.values(), CATALOG) for name in names_of(table)}
    assert columns - COLUMN_DOCS.keys() == set()


def test_no_description_is_stale() -> None:
    columns = {name for table in (*PUBLIC_TABLES.values(), CATALOG) for name in names_of(table)}
    assert COLUMN_DOCS.keys() - columns == set()


def test_fields_of_structs_are_columns_too() -> None:
    nested = pa.schema([pa.field("outer", pa.list_(pa.struct([pa.field("inner_s", pa.float64())])))])
    assert list(names_of(nested)) == ["outer", "inner_s"]


@pytest.mark.parametrize("name", COLUMN_DOCS)
def test_a_description_is_one_line(name: str) -> None:
    description = COLUMN_DOCS[name]
    assert "\n" not in description
    assert description.endswith(".")
    assert len(description) <= 120
    assert "|" not in description, "it is a cell of a Markdown table"


@pytest.mark.parametrize("name", [name for name in COLUMN_DOCS if name.endswith("_s")])
def test_times_name_their_unit(name: str) -> None:
    assert "seconds" in COLUMN_DOCS[name].lower()
