"""The generated pages of the documentation."""

import re

import pytest

from docs.scripts import generate_reference, reference_commands, reference_errors, reference_tables
from microaction import schema
from microaction.cli import COMMANDS
from microaction.errors import EXIT_CODES, FailureKind


def test_generated_pages_are_up_to_date() -> None:
    assert generate_reference.outdated_pages() == [], "run `make docs` and commit the pages"


def test_included_files_exist() -> None:
    pages = [file.read_text() for file in (generate_reference.ROOT / "docs").rglob("*.md")]
    included = [path for page in pages for path in re.findall(r"<!-- include: (\S+) -->", page)]
    assert included
    assert [path for path in included if not (generate_reference.ROOT / path).exists()] == []


def test_every_setting_is_on_the_commands_page() -> None:
    page = reference_commands.render()
    for command in COMMANDS:
        assert f"## microaction {command}\n" in page
        for flag in reference_commands.flags_of(command) - {"--help", "--config"}:
            name = flag.removeprefix("--")
            is_group = any(other.startswith(f"{flag}.") for other in reference_commands.flags_of(command))
            assert is_group or f"`{flag}`" in page or f"`{name.upper().replace('-', '_')}`" in page, flag


def test_every_column_is_on_the_tables_page() -> None:
    page = reference_tables.render()
    tables = [*schema.PUBLIC_TABLES.values(), schema.CATALOG]
    assert all(f"`{name}`" in page for table in tables for name in table.names)


def test_every_exit_code_and_failure_has_a_row() -> None:
    page = reference_errors.render()
    assert all(f"| `{code}` |" in page for code in EXIT_CODES)
    assert all(f"| `{kind}` |" in page for kind in FailureKind)


def test_outdated_pages_end_the_check_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate_reference, "outdated_pages", lambda: ["docs/reference/commands.md"])
    monkeypatch.setattr("sys.argv", ["generate_reference", "--check"])
    with pytest.raises(SystemExit, match="out of date"):
        generate_reference.main()
