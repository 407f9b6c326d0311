"""The command reference: every command, flag, environment variable, default and description, from the settings classes."""

from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator, BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings.sources.types import _CliPositionalArg, _CliSubCommand

from docs.scripts.markdown import code, table
from microaction.cli import COMMANDS
from microaction.cli.app import ENV_PREFIX
from microaction.cli.demo import DemoSettings
from microaction.clips.settings import PackSettings
from microaction.distributed.settings import CLUSTER_FIELDS
from microaction.evaluation.settings import EvaluateSettings, ImportSettings
from microaction.export.settings import ExportSettings, PageSettings
from microaction.labeling.settings import CatalogSettings, LabelSettings, PeopleSettings
from microaction.models.families import FAMILIES, PRESETS
from microaction.models.settings import ModelConfig
from microaction.preprocessing import PersonScale, Preprocessing
from microaction.registry.settings import RegistrySettings
from microaction.retraining.settings import GatesConfig, RetrainSettings
from microaction.settings import absolute_location, model_location
from microaction.skeletons.settings import SkeletonsSettings
from microaction.training.settings import RecipeConfig, TrainSettings

SETTINGS: dict[str, type[BaseModel]] = {
    "label": LabelSettings,
    "catalog": CatalogSettings,
    "people": PeopleSettings,
    "page": PageSettings,
    "export": ExportSettings,
    "pack": PackSettings,
    "train": TrainSettings,
    "evaluate": EvaluateSettings,
    "retrain": RetrainSettings,
    "registry": RegistrySettings,
    "import": ImportSettings,
    "skeletons": SkeletonsSettings,
    "demo": DemoSettings,
}
# Groups of settings that more than one command has, or that would bury a command's own: field → heading, class.
GROUPS: dict[str, tuple[str, type[BaseModel]]] = {
    "recipe": ("Recipe", RecipeConfig),
    "preprocessing": ("Preprocessing", Preprocessing),
    "gates": ("Gates", GatesConfig),
    "person": ("Person", PersonScale),
}
HEADER = ("flag, variable", "value", "default", "description")
INTRODUCTION = """# Commands

`microaction COMMAND --help` prints the same as this page. `python -m jobs.COMMAND` runs the same command from a clone
that is not installed, for `ray job submit --working-dir` (`jobs.import_weights` for `import`).

Flags override environment variables, and those override the YAML file that `--config` names: [settings](settings.md).
A nested setting has a dot in its flag and two underscores in its variable. Locations are paths or URIs.

`--help` and `--version` belong to `microaction` itself. What the commands return is on the page of [exit
codes](exit-codes.md).
"""


def render() -> str:
    """Return the page."""
    assert list(SETTINGS) == list(COMMANDS), "every command has a section"
    sections = [INTRODUCTION, *(_command(name) for name in COMMANDS), *_shared_sections()]
    return "\n".join(sections)


def flags_of(name: str) -> set[str]:
    """Return all flags of a command, those of nested settings and subcommands too."""
    return {"--help", *_flags(SETTINGS[name])}


def _flags(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for field_name, field in model.model_fields.items():
        inner: list[Any] = [field.annotation]
        if field.annotation is ModelConfig:
            inner = [] if prefix else FAMILY_UNION  # a detector's backbone has no flags of its own
        if (subcommand := _subcommand(field)) is not None:
            yield from _flags(subcommand)
            continue
        flag = prefix + field_name.replace("_", "-")
        yield f"--{flag}"
        if field.annotation is bool:
            yield f"--no-{flag}"
        for each in inner:
            if isinstance(each, type) and issubclass(each, BaseModel):
                yield from _flags(each, f"{flag}.")


FAMILY_UNION: list[type[BaseModel]] = [family.config for family in FAMILIES.values()]


def _command(name: str) -> str:
    settings = SETTINGS[name]
    fields = settings.model_fields
    subcommands = {
        fields[field].alias or field: found for field in fields if (found := _subcommand(fields[field])) is not None
    }
    if subcommands:
        parts = [f"## microaction {name}\n\n{_paragraph(settings)}\n"]
        parts += [
            _fields_section(f"microaction {name} {each}", model, f"{each}__", 3) for each, model in subcommands.items()
        ]
        return "\n".join(parts)
    return _fields_section(f"microaction {name}", settings, "", 2)


def _fields_section(title: str, model: type[BaseModel], variable_prefix: str, level: int) -> str:
    fields = model.model_fields
    positional = [name for name, field in fields.items() if _is_positional(field)]
    own = [name for name in fields if name not in positional and name not in CLUSTER_FIELDS and name != "config"]
    required = [name for name in own if fields[name].is_required()]
    words = [*(name.upper() for name in positional), *(f"{_flag(name)} {name.upper()}" for name in required)]
    usage = " ".join([title, *words, "[options]"])
    grouped = [name for name in own if _is_group(name, fields[name]) or fields[name].annotation is ModelConfig]
    plain = [*positional, *required, *(name for name in own if name not in required and name not in grouped)]
    rows = [_row(name, fields[name], variable_prefix=variable_prefix) for name in plain]
    text = f"{'#' * level} {title}\n\n{_paragraph(model)}\n\n```text\n{usage}\n```\n"
    if rows:
        text += f"\n{table(HEADER, rows)}\n"
    links = [_link(name) for name in grouped]
    if set(fields) >= CLUSTER_FIELDS:
        links.append("[cluster](#cluster)")
    if links:
        text += f"\nFurther settings: {', '.join(links)}.\n"
    return text


def _shared_sections() -> Iterator[str]:
    cluster = {name: LabelSettings.model_fields[name] for name in LabelSettings.model_fields if name in CLUSTER_FIELDS}
    rows = [_row(name, field) for name, field in cluster.items()]
    yield f"## Cluster\n\nWhat a command may count on where nodes are added on demand.\n\n{table(HEADER, rows)}\n"
    for name, family in FAMILIES.items():
        rows = [_row(field_name, field, "model.") for field_name, field in family.config.model_fields.items()]
        presets = [
            f"`{preset}`"
            + (f" ({', '.join(f'`{key}: {_yaml(value)}`' for key, value in changes.items())})" if changes else "")
            for preset, (preset_family, changes) in PRESETS.items()
            if preset_family == name
        ]
        text = f"## Model: {name}\n\n{_paragraph(family.config)}\n\n{table(HEADER, rows)}\n"
        if presets:
            text += f"\nPresets of `--model NAME` and of [`create_model`](api.md#networks): {', '.join(presets)}.\n"
        yield text
    for name, (title, model) in GROUPS.items():
        rows = [_row(field_name, field, f"{name}.") for field_name, field in model.model_fields.items()]
        yield f"## {title}\n\n{_paragraph(model)}\n\n{table(HEADER, rows)}\n"


def _is_group(name: str, field: FieldInfo) -> bool:
    return name in GROUPS and GROUPS[name][1] in (field.annotation, *get_args(field.annotation))


def _link(name: str) -> str:
    if name in GROUPS:
        return f"[`--{name}.…`](#{GROUPS[name][0].lower()})"
    return ", ".join(f"[`--{name}.…` of {family}](#model-{family})" for family in FAMILIES)


def _row(name: str, field: FieldInfo, prefix: str = "", variable_prefix: str = "") -> tuple[str, str, str, str]:
    variable = ENV_PREFIX + (variable_prefix + prefix.replace(".", "__") + name).upper()
    flag = f"--{prefix}{name.replace('_', '-')}"
    shown = code(name.upper()) if _is_positional(field) else code(flag)
    if field.annotation is bool:
        shown += f", {code(flag.replace('--', '--no-', 1))}"
    return (
        f"{shown}<br>{code(variable)}",
        _value(field.annotation, field.metadata),
        _default(field),
        _description(field),
    )


def _description(field: FieldInfo) -> str:
    description = field.description or next(
        (each.description for each in field.metadata if isinstance(each, FieldInfo)), None
    )
    return description or ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=False)
    return "" if value in (None, ()) else code(_yaml(value))


def _yaml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(_yaml(item) for item in value)}]"
    return str(value)


def _value(annotation: Any, metadata: list[Any]) -> str:
    """Return in words what values a setting takes."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return ", or ".join(_value(each, metadata) for each in arguments if each is not NoneType)
    if origin is Literal:
        return ", ".join(code(each) for each in arguments)
    if hasattr(annotation, "__metadata__"):
        return _value(annotation.__origin__, [*annotation.__metadata__, *metadata])
    if origin is tuple:
        items = {int: "integers", str: "texts"}
        kinds = next((items[each] for each in (arguments[0], *get_args(arguments[0])) if each in items), "numbers")
        return kinds if arguments[-1] is Ellipsis else f"{len(arguments)} {kinds}"
    validators = {each.func for each in metadata if isinstance(each, AfterValidator)}
    if validators & {absolute_location, model_location}:
        return "path or URI"
    grouped = {model: title for title, model in GROUPS.values()}
    if annotation in grouped:
        return f"[these settings](#{grouped[annotation].lower()})"
    if isinstance(annotation, type) and issubclass(annotation, ModelConfig):
        return "name of a network, or its settings"
    names = {str: "text", int: "integer", float: "number", bool: "yes or no"}
    return " ".join([names[annotation], *_limits(metadata)])


def _limits(metadata: list[Any]) -> Iterator[str]:
    low = next((each for each in metadata if isinstance(each, (Gt, Ge))), None)
    high = next((each for each in metadata if isinstance(each, (Lt, Le))), None)
    if isinstance(low, Ge) and isinstance(high, Le):
        yield f"from {low.ge} to {high.le}"
        return
    words = []
    if low is not None:
        words.append(f"> {low.gt}" if isinstance(low, Gt) else f"≥ {low.ge}")
    if high is not None:
        words.append(f"< {high.lt}" if isinstance(high, Lt) else f"≤ {high.le}")
    if words:
        yield ", ".join(words)


def _paragraph(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _is_positional(field: FieldInfo) -> bool:
    return _CliPositionalArg in field.metadata


def _subcommand(field: FieldInfo) -> type[BaseModel] | None:
    if _CliSubCommand not in field.metadata:
        return None
    inner = [each for each in get_args(field.annotation) if each is not NoneType]
    found: type[BaseModel] = inner[0] if inner else field.annotation  # type: ignore[assignment]
    return found
