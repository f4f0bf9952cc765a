"""docs/http-api.md is true: its lines run, in order, and answer as shown, on a real server."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from server import zoo
from server.refine.recipe import Recipe
from server.refine.weights import save_state, state_of
from tests.device_keys import DeviceKey

BLOCK = re.compile(r"(?:^    .*\n)+", re.MULTILINE)
#: As the page means `curl`: silent but for errors, and a refusal is a failure.
CURL = 'curl() { command curl -sS --fail-with-body "$@"; }; '


@dataclass(frozen=True)
class Example:
    """A line of the page, and the answer that it shows, if any."""

    line: str
    answer: Any

    @property
    def asks(self) -> tuple[str, str]:
        """Method and path."""
        words = shlex.split(self.line)
        url = next(word for word in words if word.startswith("$WEFT"))
        sends = {"--json", "--data-binary"} & set(words)
        verb = words[words.index("-X") + 1] if "-X" in words else "POST" if sends else "GET"
        return verb.lower(), url.removeprefix("$WEFT").partition("?")[0]


@pytest.fixture(scope="module")
def page(checkout: Path) -> str:
    return (checkout / "docs" / "http-api.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def examples(page: str) -> list[Example]:
    found = []
    for block in BLOCK.findall(page):
        lines = [line.strip() for line in block.splitlines()]
        commands = [line for line in lines if line.startswith("curl ")]
        shown = " ".join(line for line in lines if not line.startswith("curl "))
        answer = json.loads(re.sub(r"(?<=[\[{])\.\.\.(?=[\]}])", "", shown)) if shown else None
        found += [Example(line, None) for line in commands[:-1]]
        found += [Example(commands[-1], answer)]
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the page's reader stands: weights, and data."""
    torch.manual_seed(0)
    module = zoo.get("vgg_tiny").build({"in_channels": 1, "classes": 5})
    save_state(tmp_path / "initial.safetensors", state_of(module))
    tuned = zoo.get("vgg_tiny").build({"in_channels": 1, "classes": 10})
    save_state(tmp_path / "tuned.safetensors", state_of(tuned))
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (60, 16, 16), np.uint8)
    np.savez(tmp_path / "week-9.npz", images=images, labels=np.arange(60) % 10)
    return tmp_path


def remembered(answer: Any) -> Iterator[tuple[str, str]]:
    """What a reader would keep for the next lines, by the names that the page gives it."""
    if isinstance(answer, dict) and ("roots" in answer or answer.keys() == {"token"}):
        yield "TOKEN", answer["token"]
    if isinstance(answer, dict) and "roots" in answer:
        yield "DEVICE", answer["device_id"]
    for wanted in (answer.get("models") or []) if isinstance(answer, dict) else []:
        if isinstance(wanted, dict) and wanted.get("package"):
            yield "SHA256", wanted["package"]["sha256"]
            yield "DIGEST", wanted["weights_digest"]
            yield "ASSIGNMENT", str(wanted["assignment"])


def signature(key: DeviceKey, example: Example, known: dict[str, str]) -> str:
    """What the page's device would put in `$SIGNATURE` of this line."""
    what = {"enrol": "enrol", "token": "token"}.get(example.asks[1].rpartition("/")[2], "report")
    said = subprocess.run(
        ["bash", "-c", 'curl() { printf "%s\\0" "$@"; }; ' + example.line],
        env=known,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    body = said[said.index("--json") + 1].encode()
    return key.sign(what, "" if what == "enrol" else known["DEVICE"], body)


def has_shape_of(found: Any, shown: Any) -> bool:
    """Same fields, and in a list that shows an item the fields of that."""
    if isinstance(shown, list):
        return not shown or has_shape_of(found[0], shown[0])
    if isinstance(shown, dict) and shown:
        if "items" in shown or "models" in shown:
            return found.keys() == shown.keys() and all(
                has_shape_of(found[n], shown[n]) for n in ("items", "models") if n in shown
            )
        return found.keys() == shown.keys()
    return True


def test_lines_run_in_order_and_answer_as_shown(
    serve: Any, folder: Path, examples: list[Example]
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("the page's lines need the program curl")
    server = serve(dataset_roots=(str(folder),), webhook_hosts=("127.0.0.1",))
    key = DeviceKey()
    known = {"WEFT": server.url, "DATA": str(folder), "PATH": "/usr/bin:/bin:/usr/local/bin"}
    known["KEY"] = key.public
    for example in examples:
        if "$SIGNATURE" in example.line:
            known["SIGNATURE"] = signature(key, example, known)
        done = subprocess.run(
            ["bash", "-c", CURL + example.line],
            cwd=folder,
            env=known,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (example.line, done.stdout, done.stderr)
        if not done.stdout.startswith(("{", "[")):
            continue
        answer = json.loads(done.stdout)
        known.update(remembered(answer))
        if example.answer is not None:
            assert has_shape_of(answer, example.answer), (example.line, answer)
    state = server.client.get("/api/v1/refinements/1").json()["state"]
    assert state == "succeeded"
    assert (folder / "downloaded.safetensors").read_bytes() == (
        folder / "initial.safetensors"
    ).read_bytes()
    assert (folder / "part.weft").stat().st_size == 100


def test_every_operation_is_shown(examples: list[Example]) -> None:
    from server.app import create_app
    from server.settings import load_settings

    paths = create_app(load_settings()).openapi()["paths"]
    asked = [example.asks for example in examples]
    missing = [
        f"{verb} {path}"
        for path, operations in paths.items()
        for verb in operations
        if not any(
            verb == done and re.fullmatch(re.sub(r"{[^}]*}", "[^/]+", path), place)
            for done, place in asked
        )
    ]
    assert missing == []


def test_table_lists_exactly_the_fields_of_a_recipe(page: str) -> None:
    expected = [
        f"| `{name}` | {'' if field.default is None else f'`{json.dumps(field.default)}`'} "
        f"| {field.description} |"
        for name, field in Recipe.model_fields.items()
    ]
    section = page.partition("\n## Refinements\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `.*$", section, re.MULTILINE) == expected
