"""The task that verifies metadata: the same in this process and in a child."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.errors import TrustError
from edge_agent.heavy import Heavy
from edge_agent.heavy.child import Child
from edge_agent.heavy.inline import Inline
from edge_agent.trust.released import Listed
from edge_agent.trust.store import Store
from shared.errors import BadMetadata
from tests.signing import Repository, Roots

ONE, TWO, PACKAGE = "1" * 64, "2" * 64, "f" * 64


@pytest.fixture(params=[Inline, Child])
def heavy(request: pytest.FixtureRequest) -> Heavy:
    made: Heavy = request.param()
    return made


@pytest.fixture
def repository() -> Repository:
    made = Repository("digits", Roots())
    made.release(1, ONE)
    made.release(2, TWO)
    made.offer(PACKAGE, 1000, ONE, TWO, "xor")
    return made


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store.of(tmp_path, "digits")
    made.root.prepare()
    made.prepare()
    return made


def test_what_is_released_is_said_and_what_proves_it_is_kept(
    heavy: Heavy, repository: Repository, store: Store, tmp_path: Path
) -> None:
    now, pin = repository.now.timestamp(), repository.roots.sha256
    said = heavy.verify_metadata(tmp_path, "digits", repository.answer({}), pin, now)
    assert said.versions == {1: ONE, 2: TWO}
    assert said.packages == {PACKAGE: Listed(1000, ONE, TWO, "xor")}
    assert said.expires_at == now + 14 * 86400 == store.expires_at()
    newest = {role: file.version for role, file in repository.files.items()}
    assert store.versions() == {"root": 1, **newest}
    assert repository.answer(store.versions()) is None
    assert heavy.verify_metadata(tmp_path, "digits", None, None, now) == said


def test_errors_come_with_their_codes(
    heavy: Heavy, repository: Repository, store: Store, tmp_path: Path
) -> None:
    now, pin, answer = repository.now.timestamp(), repository.roots.sha256, repository.answer({})
    with pytest.raises(TrustError, match="to be believed is None") as refused:
        heavy.verify_metadata(tmp_path, "digits", answer, None, now)
    assert refused.value.code == "trust.wrong_root"
    with pytest.raises(BadMetadata, match="no zstd frame"):
        heavy.verify_metadata(tmp_path, "digits", b"\0junk", pin, now)
    with pytest.raises(TrustError) as late:
        heavy.verify_metadata(tmp_path, "digits", answer, pin, now + 15 * 86400)
    assert late.value.code == "trust.expired"
    Store.of(tmp_path, "faces").prepare()
    with pytest.raises(TrustError) as other:
        heavy.verify_metadata(tmp_path, "faces", answer, pin, now)
    assert other.value.code == "trust.other_model"
    assert set(store.versions()) == {"root"}


def test_no_date_is_asked_of_what_was_trusted_once(
    heavy: Heavy, repository: Repository, store: Store, tmp_path: Path
) -> None:
    now, pin = repository.now.timestamp(), repository.roots.sha256
    said = heavy.verify_metadata(tmp_path, "digits", repository.answer({}), pin, now)
    assert heavy.verify_metadata(tmp_path, "digits", None, pin, 0.0) == said


def test_the_agent_itself_does_not_load_what_verifies() -> None:
    code = "import edge_agent.commands, sys; print(*(m for m in sys.modules if '.' not in m))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"tuf", "securesystemslib", "cryptography", "urllib3"} & set(done.stdout.split())


def test_the_conformance_suite_is_left_out_where_it_is_not_there(checkout: Path) -> None:
    runner = checkout / "tests" / "conformance" / "run.py"
    for words in ([], ["/nowhere"]):
        command = [sys.executable, str(runner), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.startswith("skipped: ")
