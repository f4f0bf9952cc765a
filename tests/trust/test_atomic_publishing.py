"""Whatever ends a publication, at whatever step: devices accept what is there, and it goes on."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.trust import steps
from tests.trust.shop import Shop, TufDevice, rows_of

Make = Callable[..., TufDevice]

#: More steps than any publication has. It fails at each of them, and is killed at every sixth.
MOST = 200


class Broken(Exception):
    """What ends a transaction in these tests."""


@pytest.fixture(scope="module")
def context() -> Any:
    """Makes processes by forks of one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.trust.steps"])
    return context


@pytest.fixture
def ready(shop: Shop) -> Shop:
    """Two versions and a package are listed, another package and a root wait."""
    shop.release(1, 2)
    shop.packages = [shop.build(2, base=1), shop.build(1)]
    shop.offer(shop.packages[0])
    shop.prepare_root()
    return shop


def accepts(device: TufDevice, shop: Shop) -> list[int | str]:
    """What a device finds listed by what is published now; raises where it refuses it."""
    return device.lists(1, 2, 3, *shop.packages)


@pytest.mark.parametrize("what", steps.PUBLICATIONS)
def test_a_publication_that_fails_at_any_step_leaves_the_old_metadata(
    ready: Shop, device: Make, what: str
) -> None:
    camera = device()
    before = accepts(camera, ready)
    first = published = rows_of(ready)
    for step in range(1, MOST):
        with steps.ending_at(ready.engine, step, _break) as count:
            try:
                steps.PUBLICATIONS[what](ready)
            except Broken:
                pass
            else:
                break
        assert count[0] >= step
        if rows_of(ready) != published:  # a renewal looks at more after its transaction
            published, before = rows_of(ready), accepts(camera, ready)
        assert accepts(device(f"new-{step}"), ready) == accepts(camera, ready) == before
    assert step > 8
    assert rows_of(ready) != first
    assert accepts(camera, ready) == accepts(device("last"), ready)


def _break() -> None:
    raise Broken


@pytest.mark.parametrize("what", steps.PUBLICATIONS)
def test_a_publication_that_is_killed_is_done_by_the_next(
    ready: Shop, device: Make, context: Any, what: str
) -> None:
    camera, published = device(), rows_of(ready)
    accepts(camera, ready)
    url = ready.engine.url.render_as_string(hide_password=False)
    for step in range(1, MOST, 6):
        arguments = (url, ready.settings.data_dir, ready.packages, what, step)
        child = context.Process(target=steps.die_at, args=arguments)
        child.start()
        child.join()
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        assert rows_of(ready) == published or what == "renew"
        accepts(camera, ready)
    assert step > 8
    assert rows_of(ready) != published
    assert accepts(camera, ready) == accepts(device("last"), ready)
