"""What a child process may know of the server that starts it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from server.jobs.child import Child, environment

SECRETS = {
    "WEFT_ADMIN_KEY": "1",
    "WEFT_DATABASE_URL": "postgresql://weft:secret@db/weft",
    "PGPASSWORD": "2",
    "SMTP_PASSWORD": "3",
    "HOOK_SECRET": "4",
    "GITHUB_TOKEN": "5",
    "SIGNING_KEY": "6",
}
STORES = {"AWS_ACCESS_KEY_ID": "7", "AWS_SECRET_ACCESS_KEY": "8", "AZURE_STORAGE_KEY": "9"}
PLAIN = {"LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "PYTHONPATH": "", "KEYBOARD": "us"}


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (SECRETS | STORES | PLAIN).items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("stores", [False, True])
def test_no_secret_of_the_server(stores: bool) -> None:
    told = environment(stores)
    assert not told.keys() & SECRETS.keys()
    assert (told.keys() >= STORES.keys()) == stores
    assert stores or not told.keys() & STORES.keys()
    assert told.keys() >= PLAIN.keys()


def test_a_child_is_told_so(tmp_path: Path) -> None:
    program = "import json, os; print(json.dumps(dict(os.environ)))"
    child = Child([sys.executable, "-c", program], tmp_path)
    (told,) = child.progress()
    assert child.wait() == 0
    assert not {*SECRETS, *STORES} & told.keys()
    assert told["OMP_WAIT_POLICY"] == "PASSIVE"
    assert json.dumps(told).count("secret") == 0
