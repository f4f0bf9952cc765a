"""What a filter means, said once more in plain Python: what SQL finds is held against it."""

from __future__ import annotations

import operator
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from server.filters.syntax import And, Comparison, Node, Or, Value

ORDER = {"=gt=": operator.gt, "=ge=": operator.ge, "=lt=": operator.lt, "=le=": operator.le}
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")


def holds(node: Node, device: dict[str, list[Any]]) -> bool:
    """Whether the device, as field -> values, matches."""
    if isinstance(node, And):
        return all(holds(part, device) for part in node.parts)
    if isinstance(node, Or):
        return any(holds(part, device) for part in node.parts)
    found = device.get(node.name, [])
    if node.operator == "=null=":
        return (not found) == (node.values[0].pieces == ("true",))
    if node.operator in ORDER:
        return any(_is_beyond(node, one) for one in found)
    same = any(_is_same(one, value) for one in found for value in node.values)
    return not same if node.operator in ("!=", "=out=") else same


def _is_same(found: Any, value: Value) -> bool:
    if isinstance(found, int):
        return found == int(value.pieces[0])
    pattern = ".*".join(re.escape(piece) for piece in value.pieces)
    return re.fullmatch(pattern, found, re.DOTALL) is not None


def _is_beyond(node: Comparison, found: Any) -> bool:
    compare, (text,) = ORDER[node.operator], node.values[0].pieces
    if isinstance(found, datetime):
        return compare(found, datetime.now(UTC) - timedelta(days=int(text[1:-1])))
    if isinstance(found, str) and not NUMBER.fullmatch(found):
        return False
    return compare(float(found), float(text))
