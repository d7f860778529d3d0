"""The one way to declare a setting: default, unit, range and meaning stand together.

Every stage declares a frozen dataclass of `setting(...)` fields beside its code
(for example `matting.settings.MattingSettings`); `config.Settings` gathers them. ROS parameters,
command-line options and `docs/parameters.md` are generated from these declarations.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any


class SettingError(ValueError):
    """A setting is unknown, of the wrong type, or out of its range. The message names it and the fix."""


@dataclass(frozen=True)
class SettingInfo:
    """What a setting means: `unit` ('' when dimensionless), inclusive range, choices, one-line `doc`."""

    doc: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] | None = None
    dynamic: bool = False  # may be changed while the node runs


def setting(default: Any, doc: str, *, unit: str = "", low: float | None = None, high: float | None = None,
            choices: tuple[str, ...] | None = None, dynamic: bool = False) -> Any:
    """Declare one field of a settings dataclass (type is taken from the annotation)."""
    info = SettingInfo(doc, unit, low, high, choices, dynamic)
    return field(default=default, metadata={"setting": info})


@dataclass(frozen=True)
class Leaf:
    """One setting of a settings tree: dotted `name`, its default `value`, and its `info`."""

    name: str
    value: Any
    info: SettingInfo


def leaves(settings: Any, prefix: str = "") -> Iterator[Leaf]:
    """Yield every setting of a (nested) settings dataclass, depth first, with dotted names."""
    for f in fields(settings):
        value = getattr(settings, f.name)
        name = f"{prefix}{f.name}"
        if is_dataclass(value):
            yield from leaves(value, name + ".")
        else:
            yield Leaf(name, value, f.metadata["setting"])


def replace(settings: Any, changes: dict[str, Any]) -> Any:
    """Return a copy with dotted names replaced, each checked. Raises SettingError naming the setting."""
    known = {leaf.name: leaf for leaf in leaves(settings)}
    for name, value in changes.items():
        if name not in known:
            raise SettingError(f"unknown setting '{name}'; known: {', '.join(sorted(known))}")
        settings = _replace_one(settings, name.split("."), check(known[name], value))
    return settings


def check(leaf: Leaf, value: Any) -> Any:
    """Return `value` converted to the setting's type, or raise SettingError with name, range and unit."""
    value = _convert(leaf, value)
    info = leaf.info
    if info.choices is not None and value not in info.choices:
        raise SettingError(f"setting '{leaf.name}' is '{value}'; choose one of {', '.join(info.choices)}")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        low = -math.inf if info.low is None else info.low
        high = math.inf if info.high is None else info.high
        if not low <= value <= high:
            raise SettingError(f"setting '{leaf.name}' is {value}; allowed {low} to {high} {info.unit}".rstrip())
    return value


def _convert(leaf: Leaf, value: Any) -> Any:
    kind = type(leaf.value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind in (int, float) and isinstance(value, str):
        try:
            return kind(value)
        except ValueError:
            pass
    if kind is bool and isinstance(value, str) and value.lower() in ("true", "false", "1", "0"):
        return value.lower() in ("true", "1")
    if type(value) is not kind:
        raise SettingError(f"setting '{leaf.name}' takes {kind.__name__}, got {type(value).__name__} {value!r}")
    return value


def _replace_one(settings: Any, path: list[str], value: Any) -> Any:
    if len(path) > 1:
        value = _replace_one(getattr(settings, path[0]), path[1:], value)
    return dataclasses.replace(settings, **{path[0]: value})
