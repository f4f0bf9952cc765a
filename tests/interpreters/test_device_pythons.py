"""The agent works on the oldest and the newest Python that devices run, without the server's."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.package import PackageReader

#: `edge_agent/runtimes` holds modules for programs that have these; the agent never imports them.
IMPORT_ALL = """
import importlib, pathlib, sys
for root in ("shared", "edge_agent"):
    for path in sorted(pathlib.Path(root).rglob("*.py")):
        parts = path.with_suffix("").parts
        try:
            importlib.import_module(".".join(p for p in parts if p != "__init__"))
        except ModuleNotFoundError as error:
            if "runtimes" not in parts or error.name not in ("torch", "onnx", "onnxruntime"):
                raise
"""

#: The weights of golden vector `chain1` turned into what `lra` makes of it, and back, by children.
IN_PLACE = """
import hashlib, json, pathlib, shutil, sys
from edge_agent import trust
from edge_agent.heavy.child import Child
from shared.wire import PackageOffer

golden, folder = pathlib.Path("tests/golden"), pathlib.Path(sys.argv[1])
package = golden / "chain1.lra.weft"
weights, undo = folder / "weights", folder / "undo"
shutil.copy(golden / "chain1.base.safetensors", weights)
child = Child()
assert child.about().fault is None
old = child.digest(weights)
new = json.loads((golden / "digests.json").read_text())["chain1.lra"]
sha256 = hashlib.sha256(package.read_bytes()).hexdigest()
url, size = "/device/v1/packages/" + sha256, package.stat().st_size
offer = PackageOffer(sha256=sha256, size=size, url=url, base_digest=old, method="lra")
promise = trust.Promise(sys.argv[2], offer, new)
assert child.write_undo(package, promise, weights, undo) == new
assert child.apply(package, promise, weights, folder / "other") == new
for side, digest in (("new", new), ("old", old)):
    child.toggle(weights, undo, side)
    assert child.digest(weights) == digest
assert "numpy" not in sys.modules
"""

pytestmark = pytest.mark.parametrize("version", ["3.10", "3.13"])


def _run(python: Path, checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run on the checkout's code, warnings being errors as in every other test."""
    command = [str(python), "-W", "error", *arguments]
    environment = {"PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)


def test_every_module_imports(
    version: str, device_python: Callable[[str], Path], checkout: Path
) -> None:
    done = _run(device_python(version), checkout, "-c", IMPORT_ALL)
    assert done.returncode == 0, done.stderr


def test_golden_vectors_decode_to_their_digests(
    version: str, device_python: Callable[[str], Path], checkout: Path
) -> None:
    script = ["tests/aarch64/decode_golden.py", "tests/golden"]
    done = _run(device_python(version), checkout, *script)
    assert done.returncode == 0, done.stdout + done.stderr


def test_children_change_weights_in_place(
    version: str, device_python: Callable[[str], Path], checkout: Path, tmp_path: Path
) -> None:
    with PackageReader(checkout / "tests/golden/chain1.lra.weft") as package:
        model = package.header.model
    done = _run(device_python(version), checkout, "-c", IN_PLACE, str(tmp_path), model)
    assert done.returncode == 0, done.stderr


def test_agent_starts(version: str, device_python: Callable[[str], Path], checkout: Path) -> None:
    start = "import sys; from edge_agent.cli import main; sys.exit(main())"
    done = _run(device_python(version), checkout, "-c", start, "--help")
    assert done.returncode == 0, done.stderr
    assert "apply" in done.stdout


def test_server_refuses_an_old_python(
    version: str, device_python: Callable[[str], Path], checkout: Path
) -> None:
    if version != "3.10":
        pytest.skip("the server runs on this version")
    done = _run(device_python(version), checkout, "-c", "import server")
    assert done.returncode == 1
    assert "config.python_too_old" in done.stderr
    assert "Traceback" not in done.stderr
