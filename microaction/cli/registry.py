"""`microaction registry list | show | add | promote | rollback ROOT …`: keep models, and say which one is used."""

from typing import TYPE_CHECKING

from pydantic_settings import get_subcommand
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from microaction.cli.app import command_name, console, exit_usage, parse_settings, reported_errors
from microaction.registry.settings import (
    AddVersion,
    ListVersions,
    PromoteVersion,
    RegistrySettings,
    RollBack,
    ShowVersion,
)

if TYPE_CHECKING:
    from microaction.registry import Change, Version

output = Console()


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    settings = parse_settings(RegistrySettings, argv)
    with reported_errors():
        from microaction import registry

        match get_subcommand(settings, is_required=False):
            case ListVersions(root=root):
                changes = registry.history(root)
                output.print(_versions_table(registry.list_versions(root), changes))
                output.print(_history_table(changes))
            case ShowVersion(root=root, version=version):
                output.print_json(registry.find_version(root, version).model_dump_json())
            case AddVersion(root=root, checkpoint=checkpoint, name=name):
                added = registry.register(root, checkpoint, name=name)
                console.print(f"registered as {added.name}", highlight=False)
            case PromoteVersion(root=root, version=version, reason=reason):
                _report(registry.promote(root, version, reason=reason))
            case RollBack(root=root, reason=reason):
                _report(registry.rollback(root, reason=reason))
            case None:
                exit_usage(command_name(RegistrySettings))


def _report(change: "Change") -> None:
    console.print(f"{change.version} is in production since {change.at}", highlight=False)


def _versions_table(versions: "list[Version]", changes: "list[Change]") -> Table:
    present = changes[-1].version if changes else None
    table = Table("version", "registered", "clips", "F1 mean", "action top-1", "calibration error", "production")
    for version in versions:
        since = [change.at for change in changes if change.version == version.name]
        figures = (version.metrics.get(name) for name in ("f1_mean", "action_top1", "calibration_error"))
        table.add_row(
            version.name,
            version.created_at,
            str(sum(split.num_clips for split in version.data.values())),
            *("" if figure is None else f"{figure:.4f}" for figure in figures),
            f"since {since[-1]}" if version.name == present else f"last promoted {since[-1]}" if since else "",
        )
    return table


def _history_table(changes: "list[Change]") -> Table:
    table = Table("since", "in production", "by", "reason", title="History of production")
    for change in changes:
        table.add_row(change.at, change.version, change.kind, escape(change.reason))
    return table
