"""Reads hand-written YAML; rejects, with file and line, what YAML would silently change or drop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from replayctl.errors import SettingsError

if TYPE_CHECKING:
    import yaml

Keys = tuple[str, ...]


class YamlDocument(NamedTuple):
    """A mapping, with the line of each key and the source text of each scalar by its path of keys."""

    content: dict[str, Any]
    lines: Mapping[Keys, int]
    written: Mapping[Keys, str]


def parse(text: str, path: Path, *, depth: int) -> YamlDocument:
    """Parses a document; `path` is used in messages only. Keys are checked down to `depth`.

    Raises SettingsError for invalid YAML, for documents other than a mapping, and for keys that repeat or are not text.
    """
    # Imported here because most commands on a fresh machine have no file to read.
    import yaml

    lines: dict[Keys, int] = {}
    written: dict[Keys, str] = {}
    try:
        # Parsed once for the lines and the content: that is most of the time that settings take.
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return YamlDocument({}, {}, {})
        _walk(node, (), path, depth, lines, written)
        content = loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise SettingsError(f"{path}{where}: invalid YAML: {getattr(error, 'problem', None) or error}") from error
    except RecursionError:
        raise SettingsError(f"cannot read settings from {path}: its blocks are nested too deeply") from None
    except (ValueError, KeyError, IndexError, AttributeError, TypeError, OverflowError) as error:
        # PyYAML raises these for a tag that does not match, or for 2026-02-30, which only looks like a date.
        raise SettingsError(f"cannot read a value in {path}: {error}; quote it") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: expected the keys 'profiles' and 'default_profile'")
    return YamlDocument(content, lines, written)


def _walk(
    node: yaml.Node, prefix: Keys, path: Path, depth: int, lines: dict[Keys, int], written: dict[Keys, str]
) -> None:
    from yaml import MappingNode, ScalarNode

    if isinstance(node, ScalarNode):
        written[prefix] = node.value
    # An alias of its own parent would recurse forever.
    if not isinstance(node, MappingNode) or len(prefix) == depth:
        return
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, ScalarNode):
            raise SettingsError(f"{path}:{line}: a key is a list or a mapping, expected text")
        if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
            raise SettingsError(
                f'{path}:{line}: YAML does not read the key {key.value} as text; quote it: "{key.value}"'
            )
        where = (*prefix, key.value)
        if where in lines:
            raise SettingsError(f"{path}:{line}: {'.'.join(where)} is set twice (first in line {lines[where]})")
        lines[where] = line
        _walk(value, where, path, depth, lines, written)
