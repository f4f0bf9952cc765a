"""What is wrong with settings, said to people; what was given is left out, it may be a secret."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from shared.errors import BadConfig

#: More at once help nobody.
MOST = 5
#: By the type that pydantic gives a fault, and with its context; others are told in its own words.
_WORDS = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must be a table",
    "extra_forbidden": "there is no such setting",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "list_type": 'must be a list, such as ["one", "two"]',
    "model_attributes_type": "must be a table",
    "model_type": "must be a table",
    "path_type": "must be a text in quotes",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must not be empty",
    "string_type": "must be a text in quotes",
    "too_long": "must have at most {max_length} entries",
    "too_short": "must not be empty",
    "union_tag_invalid": "kind must be one of {expected_tags}",
}
#: By what the pattern is for.
_NAMES = "this name must have up to 64 letters, digits, dots, dashes and underscores"
_PATTERNS = {
    "models": _NAMES + ", and begin with a letter or digit",
    "attributes": _NAMES + ", and begin with a letter",
    "install_window": "must be two times of a day, such as 22:00-05:30",
    "notify_signal": "must be the name of a signal, such as HUP",
    "server_pins": "must be 64 hex digits in lower case",
}
#: In a place, these are no names of settings.
_KEY, _KINDS = "[key]", frozenset({"file", "program"})


def explained(error: ValidationError, where: str) -> BadConfig:
    """All that is wrong; `where` the settings were looked for, such as `in agent.toml`."""
    faults = error.errors(include_input=False, include_url=False)
    is_missing = faults[0]["type"] == "missing"
    said = [_said(fault["loc"], fault, where) for fault in faults]
    left = [f"{len(said) - MOST} more"] if len(said) > MOST else []
    return BadConfig("missing" if is_missing else "invalid", "; ".join(said[:MOST] + left))


def _said(loc: Sequence[int | str], fault: Mapping[str, Any], where: str) -> str:
    place = _place(loc)
    if fault["type"] == "missing":
        return f"the setting {place} is missing, {where}"
    reason = _reason(loc, fault)
    return f"{place}: {reason}" if place else reason


def _place(loc: Sequence[int | str]) -> str:
    """As it stands in the file; pydantic adds which kind of runtime it had to do with."""
    parts = [
        str(part)
        for i, part in enumerate(loc)
        if part != _KEY and not (part in _KINDS and i == 3 and loc[2] == "runtime")
    ]
    return ".".join(part if part and part.isprintable() else ascii(part) for part in parts)


def _reason(loc: Sequence[int | str], fault: Mapping[str, Any]) -> str:
    kind = fault["type"]
    if kind == "string_pattern_mismatch":
        is_text = (loc[0] == "attributes" and loc[-1] != _KEY) or loc[-1] == "name"
        name = loc[0] if loc[-1] == _KEY or isinstance(loc[-1], int) else loc[-1]
        return "must be one line" if is_text else _PATTERNS.get(str(name), "makes no sense")
    if kind in _WORDS:
        return _WORDS[kind].format_map(fault.get("ctx", {}))
    message: str = fault["msg"]
    return message.removeprefix("Value error, ").replace("Input should be", "must be")
