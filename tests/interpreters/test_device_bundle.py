"""A whole update by the agent, out of reach of any server, on the Pythons that devices run."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.bundle import Bundle, Way, written
from shared.package import PackageReader
from shared.weights import WeightsReader
from shared.wire import PackageOffer
from tests.signing import Repository, Roots

CONFIG = """
server = "http://127.0.0.1:9"  # discard: nothing listens
state_dir = "{folder}/state"
run_dir = "{folder}"
root = "{folder}/1.root.json"
[models.{model}]
initial = "{base}"
health_command = ["true"]
"""


@pytest.mark.parametrize("version", ["3.10", "3.13"])
def test_what_was_brought_along_is_installed(
    version: str, device_python: Callable[[str], Path], checkout: Path, tmp_path: Path
) -> None:
    golden = checkout / "tests" / "golden"
    base, package = golden / "chain1.base.safetensors", golden / "chain1.lra.weft"
    with WeightsReader(base) as weights, PackageReader(package) as reader:
        held, made, model = weights.digest().hex(), reader.result_digest.hex(), reader.header.model
    data = package.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    offer = PackageOffer(
        sha256=sha256,
        size=len(data),
        url=f"/device/v1/packages/{sha256}",
        base_digest=held,
        method="lra",
    )
    name, roots = model or "m", Roots()
    repository = Repository(name, roots)
    for number, digest in ((1, held), (2, made)):
        repository.release(number, digest)
    repository.offer(sha256, len(data), held, made, "lra")
    metadata = repository.answer({}) or b""
    bundle = Bundle(
        model=name,
        version=2,
        weights_digest=made,
        metadata_bytes=len(metadata),
        ways=[Way(packages=[offer])],
    )
    stick, config = tmp_path / "stick", tmp_path / "agent.toml"
    stick.write_bytes(b"".join(written(bundle, metadata, lambda _: iter([data]))))
    (tmp_path / "1.root.json").write_bytes(roots.files[0])
    config.write_text(CONFIG.format(folder=tmp_path, base=base, model=bundle.model))
    words = ["-m", "edge_agent.cli", "apply-bundle", "--json", "--config", config, stick]
    done = subprocess.run(
        [str(device_python(version)), "-W", "error", *map(str, words)],
        cwd=checkout,
        env={"PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["models"][bundle.model]["weights_digest"] == made
    assert (said["pending_reports"], said["errors"]) == (1, [])
    assert "Traceback" not in done.stderr
