"""A real refinement in the background: one thread, nice 10, as any refinement of the server."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch

from benchmarks.load.serving import Server
from server import zoo
from server.refine.weights import save_state, state_of

MODEL = "busy"
IMAGES = 4096
START_SECONDS = 60.0


def save_images(folder: Path) -> Path:
    """Random images of ten classes: what they show does not matter here."""
    draw = np.random.default_rng(0)
    path = folder / "noise.npz"
    images = draw.integers(0, 256, (IMAGES, 3, 32, 32), np.uint8)
    np.savez(path, images=images, labels=draw.integers(0, 10, IMAGES))
    return path


@contextmanager
def refining(server: Server, images: Path) -> Iterator[Callable[[bool], None]]:
    """A refinement for the length of a with-block; gives what lets it run, or stand still.

    Standing still (SIGSTOP) takes no time of a core, so calm and busy runs can alternate.
    """
    with httpx.Client(base_url=server.url, timeout=60, verify=False) as client:
        order = _order(client, images)
        _wait_for(lambda: _is_training(client, order))
        (child,) = server.children()
        try:
            yield lambda runs: os.killpg(child, signal.SIGCONT if runs else signal.SIGSTOP)
        finally:
            os.killpg(child, signal.SIGCONT)
            _post(client, f"/api/v1/refinements/{order}/cancel")


def _order(client: httpx.Client, images: Path) -> int:
    torch.manual_seed(0)
    model = {"name": MODEL, "architecture": "vgg_small", "arguments": {}}
    _post(client, "/api/v1/models", json=model)
    base = images.parent / "busy.safetensors"
    save_state(base, state_of(zoo.get("vgg_small").build({})))
    binary = {"Content-Type": "application/octet-stream"}
    url = f"/api/v1/models/{MODEL}/versions"
    _post(client, url, content=base.read_bytes(), headers=binary)
    _post(client, "/api/v1/datasets", json={"name": "noise", "uri": str(images)})
    recipe = {"epochs": 1000, "batch_size": 64, "threads": 1}
    method = {"id": "ka", "options": {"rank": 3}}
    body = {"model": MODEL, "dataset": "noise", "method": method, "recipe": recipe}
    return int(_post(client, "/api/v1/refinements", json=body)["id"])


def _is_training(client: httpx.Client, order: int) -> bool:
    found = client.get(f"/api/v1/refinements/{order}").raise_for_status().json()
    if found["state"] not in ("queued", "running"):
        raise RuntimeError(f"the refinement is {found['state']}: {found['error']}")
    return "step" in (found["progress"] or {})


def _wait_for(look: Callable[[], bool]) -> None:
    end = time.monotonic() + START_SECONDS
    while not look():
        if time.monotonic() > end:
            raise RuntimeError("the refinement did not begin to train")
        time.sleep(0.2)


def _post(client: httpx.Client, url: str, **request: Any) -> Any:
    return client.post(url, **request).raise_for_status().json()
