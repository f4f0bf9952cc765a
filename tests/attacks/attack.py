"""What an attack is here, and the table of all.

An attack is a function that sets the scene on a stage and returns the act itself:

    @attack("api", refused="request.forbidden", told="needs the role admin",
            defence="server.auth.roles:Principal.is_at_least", off=yes)
    def a_viewer_makes_itself_an_admin(plant: Plant) -> Act:
        \"\"\"Somebody who may look makes a key that may do all.\"\"\"
        ...
        return lambda: plant.ask(...)

Each is run twice. The first time it must be refused with this code, the operator must be told so,
and the stage must be as it was. The second time the one function or constant that is its defence is
replaced, for the act alone, and the same assertions must fail: the attack goes through, or, where
`then` names a code, something behind it refuses it. `docs/security.md` tells of each by its name.
"""

from __future__ import annotations

import importlib
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import pytest

Area = Literal["repository", "network", "device", "api"]


class Stage(Protocol):
    """Where attacks happen."""

    def state(self) -> object:
        """All that an attacker could want to change, to be compared."""


@dataclass(frozen=True)
class Seen:
    """What became of an act: the code of the refusal, None where it went through.

    `told`: what an operator, or whoever has asked, can read of it.
    """

    code: str | None
    told: str = ""


Act = Callable[[], Seen]


@dataclass(frozen=True)
class Attack:
    """See the module's docstring."""

    area: Area
    arrange: Callable[..., Act]
    refused: str | None
    told: str
    defence: str
    off: Any
    then: str | None

    @property
    def name(self) -> str:
        return self.arrange.__name__

    def judge(self, before: object, seen: Seen, after: object) -> None:
        """The assertions."""
        assert seen.code == self.refused, f"{seen.code}: {seen.told}"
        assert self.told in seen.told
        assert after == before

    @contextmanager
    def defenceless(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Without its defence, for as long as the block lasts."""
        owner, name = place_of(self.defence)
        assert getattr(owner, name) is not self.off
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, self.off)
            yield


ATTACKS: dict[str, Attack] = {}


def attack(
    area: Area, *, refused: str | None, told: str, defence: str, off: Any, then: str | None = None
) -> Callable[[Callable[..., Act]], Callable[..., Act]]:
    """Put an attack into the table."""

    def into_the_table(arrange: Callable[..., Act]) -> Callable[..., Act]:
        found = Attack(area, arrange, refused, told, defence, off, then)
        assert ATTACKS.setdefault(found.name, found) is found, f"{found.name} stands there twice"
        return arrange

    return into_the_table


def place_of(defence: str) -> tuple[Any, str]:
    """The module or class, and the name in it, of `module:name` or `module:Class.name`."""
    module, _, path = defence.partition(":")
    *classes, name = path.split(".")
    owner = importlib.import_module(module)
    for each in classes:
        owner = getattr(owner, each)
    return owner, name


def nothing(*_: Any, **__: Any) -> None:
    """A check that is content with all."""


def yes(*_: Any, **__: Any) -> bool:
    """A question that is answered with yes."""
    return True


def no(*_: Any, **__: Any) -> bool:
    """A question that is answered with no."""
    return False


def forgets(*_: Any) -> bytes:
    """Nothing of what was kept is there any more."""
    raise FileNotFoundError


def anybody(*_: Any) -> ssl.SSLContext:
    """TLS with whoever is at the other end."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
