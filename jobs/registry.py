"""`python -m jobs.registry list | show | add | promote | rollback ROOT …`: keeps models, and says which one is used."""

from pydantic_settings import get_subcommand
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jobs.cli import console, exit_wrong_use, parse_settings, reported_errors
from microaction import registry
from microaction.config import (
    AddVersion,
    ListVersions,
    PromoteVersion,
    RegistrySettings,
    RollBack,
    ShowVersion,
)
from microaction.registry import Change, Version

output = Console()


def main() -> None:
    settings = parse_settings(RegistrySettings)
    with reported_errors():
        match get_subcommand(settings, is_required=False):
            case ListVersions(root=root):
                changes = registry.history(root)
                output.print(versions_table(registry.list_versions(root), changes))
                output.print(history_table(changes))
            case ShowVersion(root=root, version=version):
                output.print_json(registry.find_version(root, version).model_dump_json())
            case AddVersion(root=root, checkpoint=checkpoint, name=name):
                console.print(f"registered as {registry.register(root, checkpoint, name=name).name}", highlight=False)
            case PromoteVersion(root=root, version=version, reason=reason):
                report(registry.promote(root, version, reason=reason))
            case RollBack(root=root, reason=reason):
                report(registry.rollback(root, reason=reason))
            case None:
                exit_wrong_use(RegistrySettings)


def report(change: Change) -> None:
    console.print(f"{change.version} is in production since {change.at}", highlight=False)


def versions_table(versions: list[Version], changes: list[Change]) -> Table:
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
            f"since {since[-1]}" if version.name == present else f"last put in {since[-1]}" if since else "",
        )
    return table


def history_table(changes: list[Change]) -> Table:
    table = Table("since", "in production", "by", "reason", title="History of production")
    for change in changes:
        table.add_row(change.at, change.version, change.kind, escape(change.reason))
    return table


if __name__ == "__main__":
    main()
