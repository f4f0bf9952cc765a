"""What somebody may do: roles, one above the other, and the things that they are held to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Role = Literal["viewer", "operator", "admin"]

#: Each role may do what those before it may.
ROLES: Final[tuple[Role, ...]] = ("viewer", "operator", "admin")

#: What a key can be held to.
Kind = Literal["models", "groups"]


@dataclass(frozen=True)
class Principal:
    """Somebody who was let in."""

    name: str
    """Of the key: what history says."""
    role: Role
    models: tuple[str, ...] | None = None
    """Names of the models that it sees and changes; None: all, also those to come."""
    groups: tuple[int, ...] | None = None
    """Ids of the groups on whose devices it acts; None: all devices."""
    key_id: str | None = None
    """Of the row of its key; None: it has WEFT_ADMIN_KEY, or needs no key."""

    @property
    def held_to(self) -> frozenset[Kind]:
        """The kinds of things of which it has some, not all."""
        kinds: tuple[Kind, ...] = ("models", "groups")
        return frozenset(kind for kind in kinds if getattr(self, kind) is not None)

    def is_at_least(self, role: Role) -> bool:
        """Whether it may do what `role` may."""
        return ROLES.index(self.role) >= ROLES.index(role)


#: Whoever has WEFT_ADMIN_KEY.
DECLARED: Final = Principal("admin", "admin")

#: Whoever is on the machine of a server that wants no keys.
LOCAL: Final = Principal("local", "admin")

#: The server itself.
SYSTEM: Final = "system"

#: Names that history gives to others: no key may have them.
RESERVED: Final = frozenset({DECLARED.name, LOCAL.name, SYSTEM, "nobody"})
