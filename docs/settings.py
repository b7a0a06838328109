"""Prints docs/settings.md, made from the models of a run's config: python docs/settings.py > docs/settings.md

A setting's meaning is the comment beside its field, or on the lines directly above it.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tvt_ray.cli.options import OPTIONS, TABLES
from tvt_ray.cluster.trials import CALLBACKS
from tvt_ray.distillation.losses import LOSSES
from tvt_ray.runs.config import RunConfig
from tvt_ray.vits import SPACES

HEAD = """# Settings

Every setting of a run. On the command line it is `--set KEY=VALUE`, or the flag that stands beside it. In a file for
`--config`, a dot in a key is a level of YAML. The defaults are those of `configs/digits.yaml`; for a folder of
images or Parquet files [a recipe](own_data.md#what-is-trained-and-for-how-long) sets some of them by the data. Where
`space.name` changes, the space starts from its own defaults ([spaces](spaces.md)).

The code makes this page: `python docs/settings.py > docs/settings.md`."""
COLUMNS = "\n| setting | default | takes | meaning |\n|---|---|---|---|"
TYPES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "`true`, `false`",
    "null": "`null`",
}
BOUNDS = {"minimum": "≥ {:,}", "exclusiveMinimum": "> {:,}", "maximum": "≤ {:,}", "exclusiveMaximum": "< {:,}"}
ROWS: dict[str, Callable[[], list[str]]] = {  # beside those of the flags
    "distill.loss.weights": lambda: list(LOSSES),
    "search.callbacks": lambda: list(CALLBACKS),
}


def main() -> None:
    """Prints the page."""
    config = RunConfig()
    print(HEAD)
    print_table("", config)
    for name in RunConfig.model_fields:
        if name == "space":
            for kind, space in SPACES.items():
                print(f"\n## space: {kind}")
                print_table("space.", config.space if isinstance(config.space, space) else space())
        elif isinstance(section := getattr(config, name), BaseModel):
            print_section(name, section)


def print_section(name: str, section: BaseModel) -> None:
    """A table, and one for each section in it."""
    print(f"\n## {name}\n{first_paragraph(type(section))}")
    print_table(f"{name}.", section)
    for key, value in section:
        if isinstance(value, BaseModel):
            print_section(f"{name}.{key}", value)


def print_table(prefix: str, section: Any) -> None:
    """A line for each setting of the model itself."""
    schema, meanings = type(section).model_json_schema(), meanings_of(type(section))
    print(COLUMNS)
    for key in type(section).model_fields:
        value = getattr(section, key)
        if not isinstance(value, BaseModel):
            if key not in meanings:
                raise SystemExit(
                    f"{prefix}{key} of {type(section).__name__} has no comment beside it that says what it means"
                )
            default = json.dumps(plain(value), ensure_ascii=False)
            takes = allowed(prefix + key, schema["properties"][key])
            print(f"| `{prefix}{key}`{flag(prefix + key)} | `{default}` | {takes} | {meanings[key]} |")


def first_paragraph(model: type[BaseModel] | type[Any]) -> str:
    """Of its docstring."""
    return with_null(" ".join((inspect.getdoc(model) or "").split("\n\n")[0].split()))


def meanings_of(model: type[Any]) -> Mapping[str, str]:
    """The comments of a model's fields, by their names; those of its bases first."""
    found: dict[str, str] = {}
    bases = [base for base in reversed(model.__mro__) if issubclass(base, BaseModel) and base is not BaseModel]
    for source in map(inspect.getsource, bases):
        for above, name, beside in re.findall(
            r"((?:^    # .*\n)*)^    (\w+): (?:.*?  # (?!fmt)(.*))?", source, re.MULTILINE
        ):
            words = " ".join([*above.replace("# ", "").split(), *beside.split()])
            if words:
                found[name] = with_null(words)
    return {"name": "which space the settings are of", **found}


def with_null(text: str) -> str:
    """As YAML calls Python's None."""
    return text.replace("None", "`null`")


def plain(value: Any) -> Any:
    """As JSON has it; a path below the current folder is written from there."""
    if isinstance(value, Path):
        return str(value.relative_to(Path.cwd()) if value.is_relative_to(Path.cwd()) else value)
    return value


def allowed(key: str, schema: Mapping[str, Any]) -> str:
    """What a setting takes, in words: rows of a table where it names one, else what its JSON schema says."""
    rows = ROWS.get(key) or next((TABLES[name] for name in re.findall(r"<(\w+)>", flag_help(key))), None)
    return ", ".join(f"`{row}`" for row in rows()) if rows else in_words(schema)


def in_words(schema: Mapping[str, Any]) -> str:
    """A JSON schema as the page writes it."""
    if "anyOf" in schema:
        return ", ".join(in_words(each) for each in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{choice}`" for choice in schema.get("enum", [schema.get("const")]))
    if "$ref" in schema:
        return "a section of the same keys"
    if schema["type"] == "array":
        return list_in_words(schema)
    if schema["type"] == "object":
        return "a mapping"
    bounds = [text.format(schema[bound]) for bound, text in BOUNDS.items() if bound in schema]
    return " ".join([TYPES[schema["type"]], ", ".join(bounds)]).strip()


def list_in_words(schema: Mapping[str, Any]) -> str:
    """Of what; and of how many, where that is fixed."""
    if "prefixItems" in schema:
        return f"list: {schema['minItems']} x {in_words(schema['prefixItems'][0])}"
    return f"list: {in_words(schema['items'])}"


def flag(key: str) -> str:
    """The flag that is the setting, where there is one."""
    return "".join(f", `--{name}`" for name, option in OPTIONS.items() if option.key == key)


def flag_help(key: str) -> str:
    """What `--help` says of it."""
    return "".join(option.help for option in OPTIONS.values() if option.key == key)


if __name__ == "__main__":
    main()
