"""What needs numpy, in this process and in a child: one contract, and the life of a child."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent import trust
from edge_agent.errors import AgentError, TrustError, WrongWeights
from edge_agent.heavy import Heavy
from edge_agent.heavy import child as child_module
from edge_agent.heavy.child import Child
from edge_agent.heavy.inline import Inline
from edge_agent.heavy.messages import pack_error, unpack_error
from server.packaging.encode import build_package
from shared.errors import BadPackage, BadResult, NoSpace, WeftError
from shared.weights import WeightsReader

CHECKOUT = Path(__file__).resolve().parents[2]


def promise(shelf: Any, version: int, package: str) -> trust.Promise:
    return trust.promises(shelf.wanted(version, package))[0]


class HeavyTests:
    """What the agent relies on, whichever does it."""

    @pytest.fixture
    def heavy(self) -> Heavy:
        raise NotImplementedError

    def test_it_knows_what_it_can_decode(self, heavy: Heavy) -> None:
        heavy.begin()
        about = heavy.about()
        assert about.formats == [1, 2]
        assert about.methods["xor"] == 1
        assert "zstd/1" in about.coders
        assert "BF16" in about.dtypes
        assert about.fault is None
        assert heavy.about() == about

    def test_digests(self, heavy: Heavy, shelf: Any, tmp_path: Path) -> None:
        torn = tmp_path / "torn"
        torn.write_bytes(shelf.weights[1].read_bytes()[:-1])
        assert heavy.digest(shelf.weights[1]) == shelf.digests[1]
        assert heavy.digest(torn) is None
        assert heavy.digest(tmp_path / "nothing") is None
        assert heavy.digest(tmp_path) is None

    def test_sizes_along_a_chain(self, heavy: Heavy, shelf: Any) -> None:
        steps = [(1, "full-1"), (2, "xor-12"), (3, "xor-23")]
        packages = [
            (shelf.packages[name].path, promise(shelf, version, name)) for version, name in steps
        ]
        with WeightsReader(shelf.weights[1]) as reader:
            size = sum(spec.nbytes for spec in reader.schema.values())
        assert heavy.inspect(packages, None).sizes == [size] * 3
        assert heavy.inspect(packages[1:], shelf.weights[1]).sizes == [size] * 2

    def test_applying(self, heavy: Heavy, shelf: Any, tmp_path: Path) -> None:
        package, output = shelf.packages["xor-12"].path, tmp_path / "output"
        promised = promise(shelf, 2, "xor-12")
        assert heavy.apply(package, promised, shelf.weights[1], output) == shelf.digests[2]
        assert heavy.digest(output) == shelf.digests[2]

    def test_what_is_not_the_package_is_refused(
        self, heavy: Heavy, shelf: Any, tmp_path: Path
    ) -> None:
        other, output = shelf.packages["full-1"].path, tmp_path / "output"
        with pytest.raises(TrustError) as refused:
            heavy.apply(other, promise(shelf, 2, "xor-12"), shelf.weights[1], output)
        assert refused.value.code == "trust.wrong_length"
        assert not output.exists()

    def test_another_base_is_refused(self, heavy: Heavy, shelf: Any, tmp_path: Path) -> None:
        package = shelf.packages["xor-12"].path
        with pytest.raises(BadPackage) as refused:
            heavy.apply(package, promise(shelf, 2, "xor-12"), shelf.weights[3], tmp_path / "o")
        assert refused.value.code == "package.wrong_base"

    def test_wrong_weights_come_with_their_digests(
        self, heavy: Heavy, shelf: Any, tmp_path: Path, lying: trust.Promise
    ) -> None:
        with pytest.raises(WrongWeights) as wrong:
            heavy.apply(tmp_path / "lying", lying, shelf.weights[1], tmp_path / "output")
        with WeightsReader(shelf.weights[2]) as reader:
            digests = {name: found.hex() for name, found in reader.tensor_digests().items()}
        assert wrong.value.tensor_digests == digests
        assert wrong.value.code == "result.mismatch"

    def test_a_place_that_cannot_be_written(self, heavy: Heavy, shelf: Any, tmp_path: Path) -> None:
        package, nowhere = shelf.packages["full-1"].path, tmp_path / "missing" / "output"
        with pytest.raises(NoSpace) as refused:
            heavy.apply(package, promise(shelf, 1, "full-1"), None, nowhere)
        assert refused.value.code == "storage.unusable"
        assert str(nowhere) in refused.value.message

    @pytest.fixture
    def lying(self, shelf: Any, tmp_path: Path) -> trust.Promise:
        """A package whose result digest is not what its bytes give."""
        path = tmp_path / "lying"
        build_package(shelf.weights[1], shelf.weights[2], "xor", {}, path, "digits")
        content = path.read_bytes()
        right, wrong = bytes.fromhex(shelf.digests[2]), bytes(32)
        assert content.count(right) == 1
        path.write_bytes(content.replace(right, wrong))
        offer = promise(shelf, 2, "xor-12").offer
        changed = {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "size": path.stat().st_size,
        }
        return trust.Promise("digits", offer.model_copy(update=changed), wrong.hex())


class TestInline(HeavyTests):
    @pytest.fixture
    def heavy(self) -> Heavy:
        return Inline()


class TestChild(HeavyTests):
    @pytest.fixture
    def heavy(self) -> Heavy:
        return Child()


def test_a_child_begins_with_little() -> None:
    """What each task takes comes on top, so that a digest does not pay for a decoding."""
    code = "import sys, edge_agent.heavy.__main__; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert not {"numpy", "pydantic", "zstandard", "httpcore", "ssl"} & set(done.stdout.split())


def test_errors_travel_whole() -> None:
    errors: list[WeftError] = [
        WrongWeights("message", {"tensor": "00000000"}),
        BadResult("broken_arithmetic", "message"),
        AgentError("worker_died", "message"),
    ]
    for error in errors:
        back = unpack_error(pack_error(error))
        assert type(back) is type(error)
        assert vars(back) == vars(error)


# The life of a child, with a task that takes minutes: the digest of a huge file that is one hole.
AGENT = """
import signal, sys
from pathlib import Path
from edge_agent.heavy.child import Child
from edge_agent.stopping import STOP, end_on_signals

class Stopped(BaseException): ...

def beat():
    print("waiting", flush=True)
    STOP.check()

end_on_signals(Stopped)
try:
    Child(beat).digest(Path(sys.argv[1]))
except Stopped:
    print("stopped", flush=True)
"""


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    path = tmp_path / "endless"
    size = 1 << 40
    entry = f'{{"w":{{"dtype":"U8","shape":[{size}],"data_offsets":[0,{size}]}}}}'
    path.write_bytes(len(entry).to_bytes(8, "little") + entry.encode())
    with path.open("r+b") as file:
        file.truncate(8 + len(entry) + size)
    return path


def children(parent: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):  # it may have ended
            if f"\nPPid:\t{parent}\n" in status.read_text():
                found.append(int(status.parent.name))
    return found


def ended(pid: int) -> int:
    """A descriptor that becomes readable when the process has ended."""
    return os.pidfd_open(pid)


def wait_for(ends: int) -> None:
    poll = select.poll()
    poll.register(ends, select.POLLIN)
    assert poll.poll(60_000)
    os.close(ends)


@pytest.fixture
def agent(endless: Path) -> Iterator[subprocess.Popen[str]]:
    """An agent that waits for its child."""
    command = [sys.executable, "-c", AGENT, str(endless)]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        yield process
        process.kill()


def test_a_child_ends_with_an_agent_that_is_killed(agent: subprocess.Popen[str]) -> None:
    (child,) = children(agent.pid)
    ends = ended(child)
    agent.kill()
    wait_for(ends)


def test_a_child_is_killed_when_the_agent_is_stopped(agent: subprocess.Popen[str]) -> None:
    (child,) = children(agent.pid)
    ends = ended(child)
    agent.terminate()
    said, _ = agent.communicate(timeout=60)
    assert said.endswith("stopped\n")
    assert agent.returncode == 0
    wait_for(ends)


def test_signals_for_the_agent_are_not_for_its_child(agent: subprocess.Popen[str]) -> None:
    (child,) = children(agent.pid)
    status = Path(f"/proc/{child}/status").read_text()
    blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
    for number in (signal.SIGTERM, signal.SIGINT):
        assert blocked & 1 << number - 1
    mine = Path(f"/proc/{agent.pid}/status").read_text()
    assert int(mine.partition("SigBlk:")[2].split()[0], 16) == 0


def test_a_child_that_is_killed_is_an_error(endless: Path) -> None:
    before = set(children(os.getpid()))

    def kill() -> None:
        for child in set(children(os.getpid())) - before:
            os.kill(child, signal.SIGKILL)

    with pytest.raises(AgentError) as died:
        Child(kill).digest(endless)
    assert died.value.code == "agent.worker_died"
    assert "SIGKILL" in died.value.message
    assert set(children(os.getpid())) <= before


def test_a_child_that_dies_of_the_first_question_leaves_nothing_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    child = Child()
    with monkeypatch.context() as broken:
        broken.setattr("edge_agent.heavy.child._START", "import sys; sys.exit(3)")
        child.begin()
        about = child.about()
    assert isinstance(about.fault, AgentError)
    assert about.fault.code == "agent.worker_died"
    assert about.methods == {}
    assert child.about().fault is None


@pytest.mark.parametrize("answer", ["", "nonsense", "[]", "{}", '{"error": {"kind": "None"}}'])
def test_an_answer_that_makes_no_sense(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    start = f"import os; os.write(1, {answer.encode()!r})"
    monkeypatch.setattr("edge_agent.heavy.child._START", start)
    with pytest.raises(AgentError) as died:
        Child().digest(Path("/nowhere"))
    assert died.value.code == "agent.worker_died"


def test_what_a_library_prints_is_not_an_answer(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    talk = "import edge_agent.heavy.inline as i; i.Inline.digest = lambda *_: print('hello');"
    start = child_module._START.replace("main()", talk + " main()")
    monkeypatch.setattr("edge_agent.heavy.child._START", start)
    assert Child().digest(Path("/nowhere")) is None
    assert capfd.readouterr() == ("", "hello\n")


def test_a_fault_of_ours_is_told_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fault = "import edge_agent.heavy.inline as i; i.Inline.digest = lambda *_: 1 / 0;"
    start = child_module._START.replace("main()", fault + " main()")
    monkeypatch.setattr("edge_agent.heavy.child._START", start)
    with pytest.raises(AgentError) as told:
        Child().digest(Path("/nowhere"))
    assert told.value.code == "agent.unexpected"
    assert "ZeroDivisionError" in told.value.message
    assert "Traceback" in capfd.readouterr().err


def test_a_child_that_cannot_be_started_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For want of memory, or a Python that the agent's user may not run; the agent goes on."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    child = Child()
    child.begin()

    with pytest.raises(AgentError) as died:
        child.digest(tmp_path)
    assert died.value.code == "agent.worker_died"
    fault = child.about().fault
    assert fault is not None
    assert fault.code == "agent.worker_died"

    monkeypatch.undo()
    assert child.about().formats


DYING = """
import os, signal, sys
sys.path[:] = sys.argv[1:]
from edge_agent import files

class Dying(files.Disk):
    def rename(self, path, target):
        os.kill(os.getpid(), signal.SIGKILL)

files.disk = Dying()
from edge_agent.heavy.__main__ import main
main()
"""


@pytest.mark.parametrize("task", ["apply", "write_undo"])
def test_a_child_that_is_killed_leaves_no_file_behind(
    task: str, shelf: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name has the child's own number: the next one would not find it."""
    monkeypatch.setattr("edge_agent.heavy.child._START", DYING)
    package, promised = shelf.packages["xor-12"].path, promise(shelf, 2, "xor-12")
    output = tmp_path / "output"
    output.write_bytes(b"as it was")
    with pytest.raises(AgentError) as died:
        getattr(Child(), task)(package, promised, shelf.weights[1], output)
    assert died.value.code == "agent.worker_died"
    assert [path.name for path in tmp_path.iterdir()] == ["output"]
    assert output.read_bytes() == b"as it was"
