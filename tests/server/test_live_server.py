"""The server that tests start: one that cannot start says why, at once."""

from __future__ import annotations

import pytest

from server.errors import DatabaseError


def test_a_start_that_fails_is_told_at_once(serve, empty_database_url):
    with pytest.raises(DatabaseError) as caught:
        serve(database_url=empty_database_url, auto_migrate=False)
    assert caught.value.code == "database.not_migrated"
