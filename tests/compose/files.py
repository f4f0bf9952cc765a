"""docker-compose.yml and Dockerfile as data: what `docker compose config` would show."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

VARIABLE = re.compile(r"\$\{(\w+)(?:(:-|:\?)([^}]*))?\}")
INSTRUCTION = re.compile(r"^([A-Z]+)\s+(.*)$")


class NotSet(Exception):
    """A variable that compose would ask for."""


def interpolate(value: Any, variables: Mapping[str, str]) -> Any:
    """`${NAME}`, `${NAME:-default}` and `${NAME:?message}` in all texts, as compose does."""
    if isinstance(value, dict):
        return {key: interpolate(part, variables) for key, part in value.items()}
    if isinstance(value, list):
        return [interpolate(part, variables) for part in value]
    if not isinstance(value, str):
        return value

    def found(match: re.Match[str]) -> str:
        name, how, text = match.groups()
        if variables.get(name):
            return variables[name]
        if how != ":-":
            raise NotSet(f"{name}: {text}")
        return str(text)

    return VARIABLE.sub(found, value)


def load_compose(path: Path, variables: Mapping[str, str]) -> Any:
    """The file with merges done and variables put in."""
    return interpolate(yaml.safe_load(path.read_text(encoding="utf-8")), variables)


@dataclass
class Stage:
    """One stage of a Dockerfile, with what it inherits."""

    base: str
    lines: list[tuple[str, str]] = field(default_factory=list)

    def last(self, instruction: str) -> str | None:
        """The argument of the last such instruction."""
        return next((text for name, text in reversed(self.lines) if name == instruction), None)

    def command(self, instruction: str) -> list[str]:
        """The words of CMD, or of the command in HEALTHCHECK."""
        text = self.last(instruction) or ""
        words: list[str] = json.loads(text[text.index("[") :])
        return words

    def environment(self) -> dict[str, str]:
        """All of ENV."""
        pairs = (text for name, text in self.lines if name == "ENV")
        return dict(pair.split("=", 1) for text in pairs for pair in text.split())


def load_stages(path: Path) -> dict[str, Stage]:
    """The stages of a Dockerfile by name."""
    text = re.sub(r"\\\n\s*", "", path.read_text(encoding="utf-8"))
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    for line in text.splitlines():
        match = INSTRUCTION.match(line)
        if match is None:
            assert not line.strip() or line.startswith("#"), line
            continue
        name, rest = match.groups()
        if name == "ARG" and not stages:
            arguments.update([rest.split("=", 1)])
        elif name == "FROM":
            base, _, alias = interpolate(rest, arguments).partition(" AS ")
            parent = stages.get(base)
            lines = list(parent.lines) if parent else []
            current = stages[alias] = Stage(parent.base if parent else base, lines)
        else:
            current.lines.append((name, rest))
    return stages
