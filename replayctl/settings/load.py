"""Settings: one declared list, merged from defaults, the team's file, the user's file, the environment and flags.

Each value remembers where it came from. Nothing is read when this module is imported.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from replayctl.errors import SettingsError
from replayctl.settings.base_dirs import base_dirs
from replayctl.settings.declared import GROUPS, SETTINGS, Settings, build
from replayctl.settings.document import YamlDocument, parse
from replayctl.settings.values import NotTextError, to_path

TEAM_FILE = "replayctl.yaml"
SHIPPED_FILE = Path(__file__).with_name("profiles.yaml")
LOCAL_PROFILE = "local"
# profiles → name → group → key
_DEPTH = 4
_LONGEST_FILE = 1 << 20
_ENVIRONMENT_PREFIX = "REPLAYCTL_"
# Variables with our prefix that are not settings.
_OTHER_VARIABLES = frozenset({"REPLAYCTL_PROFILE", "REPLAYCTL_CONFIG", "REPLAYCTL_LAB", "REPLAYCTL_MARK"})


_BY_KEY = {setting.key: setting for setting in SETTINGS}


class _Value(NamedTuple):
    value: Any
    source: str


def load_settings(
    profile: str | None, *, flags: Mapping[str, object] | None = None, environ: Mapping[str, str], cwd: Path
) -> Settings:
    """The settings of a profile (None: the selected one); later sources override earlier ones.

    Raises SettingsError that names the key and the source for anything unknown or malformed.
    """
    documents = _read_documents(environ, cwd)
    name = profile or environ.get("REPLAYCTL_PROFILE") or _default_profile(documents)
    if name != LOCAL_PROFILE:
        # The shipped file does not define the local profile, so there is no need to read it.
        documents = [_read_document(SHIPPED_FILE), *documents]
    known = {LOCAL_PROFILE} | {profile_name for document in documents for profile_name in document.profiles}
    if name not in known:
        file = documents[-1].path if documents[-1].path != SHIPPED_FILE else TEAM_FILE
        raise SettingsError(
            f"profile {name!r} does not exist{_did_you_mean(name, known)}",
            hint=f"run `replayctl settings profiles` to list the profiles, or add {name!r} to {file}",
        )
    values: dict[str, _Value] = {setting.key: _Value(setting.default(), "default") for setting in SETTINGS}
    if name == LOCAL_PROFILE:
        values["user"] = _Value(login_user(environ), "login name")
    for document in documents:
        values |= document.profiles.get(name, {})
    values |= _from_environment(environ, cwd)
    for key, value in (flags or {}).items():
        if key in _BY_KEY and _BY_KEY[key].secret:
            raise SettingsError(f"cannot set {key} by a flag: every user of this machine could read it")
        if value is not None:
            values[key] = _Value(_converted(key, value, "flag", cwd), "flag")
    return build(
        name, {key: entry.value for key, entry in values.items()}, {key: entry.source for key, entry in values.items()}
    )


def list_profiles(environ: Mapping[str, str], cwd: Path) -> dict[str, str]:
    """Every profile, with the files that define it; SettingsError for a malformed file."""
    definitions = {LOCAL_PROFILE: "built in"}
    for document in (_read_document(SHIPPED_FILE), *_read_documents(environ, cwd)):
        for name in document.profiles:
            here = "shipped" if document.path == SHIPPED_FILE else str(document.path)
            definitions[name] = f"{definitions[name]}, {here}" if name in definitions else here
    return definitions


def login_user(environ: Mapping[str, str]) -> str | None:
    """The login name in the form that namespaces allow; None when no allowed character remains."""
    import getpass

    try:
        name = environ.get("LOGNAME") or environ.get("USER") or getpass.getuser()
    except (KeyError, OSError):
        return None
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:32].strip("-") or None


class _Document(NamedTuple):
    path: Path
    default_profile: str | None
    profiles: Mapping[str, Mapping[str, _Value]]


def _read_documents(environ: Mapping[str, str], cwd: Path) -> list[_Document]:
    """The team's file first, then the user's."""
    team = _explicit_file(environ, cwd)
    if team is None:
        # Parent folders that this user cannot read are skipped.
        above = (folder / TEAM_FILE for folder in (cwd, *cwd.parents))
        team = next((path for path in above if os.path.isfile(path)), None)
    user = base_dirs().user_config_path / "config.yaml"
    return [_read_document(path) for path in (team, user) if path is not None and _is_file(path)]


def _explicit_file(environ: Mapping[str, str], cwd: Path) -> Path | None:
    name = environ.get("REPLAYCTL_CONFIG")
    if not name:
        return None
    try:
        path = cwd / to_path(name)
    except ValueError as error:
        raise SettingsError(f"REPLAYCTL_CONFIG {error}") from None
    if not _is_file(path):
        raise SettingsError(f"REPLAYCTL_CONFIG names {path}, which is not a file")
    return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error


def _read_document(path: Path) -> _Document:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_LONGEST_FILE + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read {path}: {error}") from error
    if len(text) > _LONGEST_FILE:
        raise SettingsError(f"cannot read settings from {path}: it has more than {_LONGEST_FILE} characters")
    document = parse(text, path, depth=_DEPTH)
    content, lines = document.content, document.lines
    known = {"profiles", "default_profile"}
    for key in content:
        if key not in known:
            raise SettingsError(f"{path}:{lines.get((key,), 1)}: unknown key {key!r}{_did_you_mean(str(key), known)}")
    default = content.get("default_profile")
    if default is not None and not isinstance(default, str):
        raise SettingsError(f"{path}: default_profile is {default!r}, expected the name of a profile")
    profiles = content.get("profiles") or {}
    if not isinstance(profiles, dict):
        raise SettingsError(f"{path}: profiles must be a mapping of profile names to settings")
    return _Document(
        path, default, {name: _profile_values(path, name, block, document) for name, block in profiles.items()}
    )


def _profile_values(path: Path, name: str, block: Any, document: YamlDocument) -> dict[str, _Value]:
    if block is None:
        return {}
    if not isinstance(block, dict):
        raise SettingsError(
            f"{path}:{document.lines.get(('profiles', name), 1)}: profile {name!r} must be a mapping of settings"
        )
    values: dict[str, _Value] = {}
    for key, value in block.items():
        source = f"{path}:{document.lines.get(('profiles', name, key), 1)}"
        entries: dict[tuple[str, ...], Any]
        if key in GROUPS:
            if not isinstance(value, (dict, type(None))):
                raise SettingsError(f"{source}: {key} must be a mapping of settings, not a single value")
            entries = {(key, inner): entry for inner, entry in (value or {}).items()}
        else:
            entries = {(key,): value}
        for parts, entry in entries.items():
            where = ("profiles", name, *parts)
            dotted, source = ".".join(parts), f"{path}:{document.lines.get(where, 1)}"
            if dotted in values:
                raise SettingsError(f"{source}: {dotted} is set twice (first at {values[dotted].source})")
            # Relative paths start at the file's folder, so that a team's file means the same in every folder below it.
            converted = _converted(dotted, entry, source, path.parent, document.written.get(where))
            values[dotted] = _Value(converted, source)
    return values


def _from_environment(environ: Mapping[str, str], cwd: Path) -> dict[str, _Value]:
    names = {_ENVIRONMENT_PREFIX + setting.key.upper().replace(".", "_"): setting.key for setting in SETTINGS}
    values = {}
    if environ.get("USERNAME_ON_CLUSTER"):
        values["user"] = _Value(environ["USERNAME_ON_CLUSTER"], "USERNAME_ON_CLUSTER")
    for variable, text in environ.items():
        if not variable.startswith(_ENVIRONMENT_PREFIX) or variable in _OTHER_VARIABLES:
            continue
        if variable not in names:
            raise SettingsError(f"unknown setting {variable} in the environment{_did_you_mean(variable, set(names))}")
        values[names[variable]] = _Value(_converted(names[variable], text, variable, cwd), variable)
    return values


def _converted(key: str, value: Any, source: str, base: Path, written: str | None = None) -> Any:
    """The value of a setting; relative paths start at `base`, `written` is its text in the file."""
    if key not in _BY_KEY:
        raise SettingsError(
            f"{source}: unknown setting {key!r}{_did_you_mean(key, set(_BY_KEY))}",
            hint="run `replayctl settings show` to list all settings",
        )
    try:
        converted = _BY_KEY[key].convert(value)
        return (base / converted).absolute() if isinstance(converted, Path) else converted
    except NotTextError:
        meant = "***" if _BY_KEY[key].secret else str(value) if written is None else written
        raise SettingsError(
            f'{source}: {key} is {meant}, which YAML does not read as text; quote it: "{meant}"'
        ) from None
    except ValueError as error:
        reason = "has a malformed value" if _BY_KEY[key].secret else str(error)
        raise SettingsError(f"{source}: {key} {reason}") from None


def _default_profile(documents: list[_Document]) -> str:
    return next(
        (document.default_profile for document in reversed(documents) if document.default_profile), LOCAL_PROFILE
    )


def _did_you_mean(word: str, known: set[str]) -> str:
    near = get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
