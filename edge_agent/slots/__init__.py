"""Where the weights of a model lie on the disk; the contract of a storage mode is in `base.py`.

`STORAGES` is the one list of modes (`[models.<name>]`, `storage`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from edge_agent.config import StorageMode
from edge_agent.slots.base import Storage
from edge_agent.slots.directory import SLOTS, Directory
from edge_agent.slots.inplace import OneFile
from edge_agent.slots.two import TwoSlots

__all__ = ["SLOTS", "STORAGES", "Directory", "Storage"]

STORAGES: Final[Mapping[StorageMode, type[Storage]]] = MappingProxyType(
    {"ab": TwoSlots, "inplace": OneFile}
)
