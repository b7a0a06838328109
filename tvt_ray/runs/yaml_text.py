"""YAML text as Python values. A key that is given twice is an error, where YAML's readers take the last in silence."""

from __future__ import annotations

from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.reader import ReaderError

from tvt_ray.errors import UsageError

MOST_VALUES = 100_000  # in a text; a file of a kilobyte can name more with aliases of aliases than fit into memory


class _Loader(yaml.SafeLoader):
    """Looks at the keys as they are written. What `<<` merges in comes later, and may be overridden."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping of the text, each key once."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)  # type: ignore[no-untyped-call]
        seen: dict[tuple[str, str], yaml.Node] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                first = seen.setdefault((key.tag, key.value), key)
                if first is not key:
                    problem = f"the key {key.value!r} is there twice (first in line {first.start_mark.line + 1})"
                    raise ConstructorError(problem=problem, problem_mark=key.start_mark)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A node's value, with the place of one that cannot be made."""
        try:
            return super().construct_object(node, deep)  # type: ignore[no-untyped-call]
        except (ValueError, KeyError, IndexError, AttributeError, OverflowError) as error:  # 2024-13-45, !!bool maybe
            problem = f"{node.value!r} is no {node.tag.rpartition(':')[2]} ({error})"
            raise ConstructorError(problem=problem, problem_mark=node.start_mark) from None


def parse(text: bytes | str) -> Any:
    """The value of the one document in a text, UTF-8 or UTF-16. None where it is empty.

    Raises ValueError that says in one line what is wrong, and where.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()  # type: ignore[no-untyped-call]
            if node is None:
                return None
            _count(node, {})
            return loader.construct_document(node)  # type: ignore[no-untyped-call]
        finally:
            loader.dispose()  # type: ignore[no-untyped-call]
    except yaml.MarkedYAMLError as error:
        place = error.problem_mark
        where = f"line {place.line + 1}, column {place.column + 1}: " if place else ""
        raise ValueError(where + ", ".join(filter(None, (error.context, error.problem)))) from None
    except ReaderError as error:
        line = len(text[: error.position + 1].splitlines())
        raise ValueError(f"line {line}: {error.character:#x}: {error.reason}; save it as UTF-8") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Values that a node stands for, with those that aliases (*name) repeat. Raises ConstructorError for too many.

    `known`: of nodes that were counted; 0 of those that it is in.
    """
    if id(node) in known:
        count = known[id(node)]
        if count == 0:
            raise ConstructorError(problem="an alias is inside of what it names", problem_mark=node.start_mark)
        return count
    known[id(node)] = 0
    parts = node.value if isinstance(node, yaml.CollectionNode) else ()
    if isinstance(node, yaml.MappingNode):
        parts = [part for pair in parts for part in pair]
    count = 1 + sum(_count(part, known) for part in parts)
    if count > MOST_VALUES:
        problem = f"it holds more than {MOST_VALUES:,} values, those that aliases repeat among them"
        raise ConstructorError(problem=problem, problem_mark=node.start_mark)
    known[id(node)] = count
    return count


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
