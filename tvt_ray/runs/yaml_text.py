"""YAML text as Python values. A key that is given twice is an error, where YAML's readers take the last in silence."""

from __future__ import annotations

import codecs
from typing import Any

import yaml

from tvt_ray.errors import UsageError

TAB_ADVICE = "; indent with spaces, since YAML knows no tabs"


class _Loader(yaml.SafeLoader):
    """Looks at the keys as they are written. What `<<` merges in comes later, and may be overridden."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping of the text. Raises ValueError for a key that it has twice."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)  # type: ignore[no-untyped-call]
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                name, line = (key.tag, key.value), key.start_mark.line + 1
                if name in lines:
                    raise ValueError(f"line {line}: the key {key.value!r} is there twice (first in line {lines[name]})")
                lines[name] = line
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A node's value. Raises ValueError where text is not what its tag, or its look, says."""
        try:
            return super().construct_object(node, deep)  # type: ignore[no-untyped-call]
        except (ValueError, KeyError, IndexError, AttributeError, OverflowError) as error:  # 2024-13-45, !!bool maybe
            if not isinstance(node, yaml.ScalarNode):
                raise
            kind = node.tag.rpartition(":")[2]
            raise ValueError(f"line {node.start_mark.line + 1}: {node.value!r} is no {kind} ({error})") from None


def parse(text: bytes | str) -> Any:
    """The value of the one document in a text, which is UTF-8. None where it is empty.

    Raises ValueError that says in one line what is wrong, and where.
    """
    try:
        return yaml.load(_decode(text), _Loader)
    except yaml.MarkedYAMLError as error:
        raise ValueError(_describe(error)) from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_assignment(text: str) -> dict[str, Any]:
    """'search.num_samples=64' -> {'search': {'num_samples': 64}}; the value is read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set takes key.path=value, as in --set probe.num_images=64; got {text!r}")
    try:
        nested: Any = parse(value)
    except ValueError as error:
        raise UsageError(f"--set {key}: {value!r} is not YAML: {error}") from None
    for part in reversed(key.strip().split(".")):
        nested = {part: nested}
    return dict(nested)


def _decode(text: bytes | str) -> str:
    if isinstance(text, str):
        return text
    if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError("it is UTF-16; save it as UTF-8")
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line}: byte {text[error.start]:#04x} is not UTF-8; save it as UTF-8") from None


def _describe(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    problem = ", ".join(filter(None, (error.context, error.problem)))
    tab = TAB_ADVICE if "'\\t'" in problem else ""
    return f"{where}{problem}{tab}"
