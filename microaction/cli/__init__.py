"""The command `microaction`: one file per subcommand, imported when it is used."""

import sys
from importlib import import_module

COMMANDS = {
    "label": ("label", "label every video of an archive"),
    "catalog": ("catalog", "list the videos of an archive, and what each of them is"),
    "people": ("people", "find the people in every video, as a list to edit and a contact sheet"),
    "page": ("page", "write pages that show an archive and its videos with their labels"),
    "export": ("export", "write labels for ELAN, BORIS, Excel and other programs"),
    "pack": ("pack", "encode labeled clips so that training reads them fast"),
    "train": ("train", "train a network on labeled clips"),
    "evaluate": ("evaluate", "measure a checkpoint on labeled clips"),
    "retrain": ("retrain", "train on new labels and promote the result if it passes the gates"),
    "registry": ("registry", "keep versions of models, and say which one is in production"),
    "import": ("import_weights", "make a checkpoint of published weights, calibrated where clips are given"),
    "skeletons": ("skeletons", "make tables of skeletons, which PCAN sees beside the frames"),
    "demo": ("demo", "draw interviews, label them and compare with the truth"),
}
"""Subcommand → its module in this package, and what it does."""


def main(argv: list[str] | None = None) -> None:
    """Run a subcommand: the console script `microaction`."""
    arguments = sys.argv[1:] if argv is None else argv
    match arguments:
        case [] | ["-h" | "--help"]:
            sys.stdout.write(_help())
            sys.exit(0 if arguments else 2)
        case ["-V" | "--version"]:
            from microaction import __version__

            sys.stdout.write(f"microaction {__version__}\n")
        case [name, *rest] if name in COMMANDS:
            run(name, rest)
        case [name, *_]:
            sys.stderr.write(f"microaction: no command {name!r}; `microaction --help` lists the commands\n")
            sys.exit(2)


def run(name: str, argv: list[str] | None = None) -> None:
    """Run one subcommand with its arguments, by default those of the process."""
    import_module(f"{__name__}.{COMMANDS[name][0]}").main(argv)


def _help() -> str:
    lines = [f"  {name:10} {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: microaction COMMAND …",
            "",
            "Labels interview video with micro-actions, and trains the networks that do it.",
            "",
            "commands:",
            *lines,
            "",
            "options:",
            "  -h, --help     show this help; `microaction COMMAND --help` lists the settings of a command",
            "  -V, --version  show the version",
            "",
        ]
    )
