"""One grammar for groups, rollouts and history: text in, an SQL condition out.

    syntax.py    what a filter says: a tree of comparisons, and how it is written
    grammar.py   text -> tree (RSQL)
    sql.py       tree -> condition, by the fields that a subject allows
    devices.py, rollouts.py, events.py   the subjects

No text of a filter ever becomes SQL text: fields come from the lists of the subjects, values are
bound parameters. `docs/filters.md` describes the grammar. All raise BadFilter.
"""

from server.filters.devices import devices_where, groups_named
from server.filters.events import events_where
from server.filters.grammar import parse
from server.filters.rollouts import rollouts_where
from server.filters.subjects import check
from server.filters.syntax import show

__all__ = [
    "check",
    "devices_where",
    "events_where",
    "groups_named",
    "parse",
    "rollouts_where",
    "show",
]
