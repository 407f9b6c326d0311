"""`microaction skeletons import FILE OUT`: make a table of skeletons of a published pickle."""

from pydantic_settings import get_subcommand

from microaction.cli.app import command_name, console, exit_usage, parse_settings, reported_errors
from microaction.skeletons.settings import ImportSkeletons, SkeletonsSettings


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    settings = parse_settings(SkeletonsSettings, argv)
    with reported_errors():
        match get_subcommand(settings, is_required=False):
            case ImportSkeletons(file=file, out=out):
                console.print(
                    f"{out}: skeletons of {import_skeletons(file, out)} clips", highlight=False, soft_wrap=True
                )
            case None:
                exit_usage(command_name(SkeletonsSettings))


def import_skeletons(file: str, out: str) -> int:
    """Write the table of a pickle's skeletons; return of how many clips. Raises `SkeletonError`."""
    from microaction import storage
    from microaction.skeletons import SkeletonError, published_skeletons, write_skeletons

    try:
        data = storage.read_bytes(file)
    except FileNotFoundError as error:
        raise SkeletonError(f"no file at {file}") from error
    storage.check_writable(out)
    try:
        return write_skeletons(published_skeletons(data), out)
    except SkeletonError as error:
        raise SkeletonError(f"{file}: {error}") from error
