"""The lease: many inferences or one change; changes are not starved, nor is anybody for ever."""

from __future__ import annotations

import threading

import pytest

from edge_agent.runtimes.lease import Lease


@pytest.fixture
def lease() -> Lease:
    made = Lease()
    made.open()
    return made


def test_it_is_closed_until_there_are_weights() -> None:
    with pytest.raises(TimeoutError), Lease().read(timeout=0.01):
        raise AssertionError


def test_inferences_run_beside_each_other(lease: Lease) -> None:
    both = threading.Barrier(2)

    def infer() -> None:
        with lease.read(timeout=20):
            both.wait(20)

    threads = [threading.Thread(target=infer) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not both.broken


def test_a_change_waits_for_the_inference_under_way_and_goes_before_the_next(
    lease: Lease,
) -> None:
    """Inferences that overlap without a gap would keep it waiting for ever."""
    begun, end = threading.Event(), threading.Event()
    order: list[str] = []

    def infer() -> None:
        with lease.read(timeout=20):
            begun.set()
            end.wait(20)
            order.append("first inference")

    def change() -> None:
        lease.close(20)
        order.append("change")
        lease.open()

    first, writer = threading.Thread(target=infer), threading.Thread(target=change)
    first.start()
    assert begun.wait(20)
    writer.start()
    while not lease.is_closed:
        pass
    with pytest.raises(TimeoutError), lease.read(timeout=0.01):
        order.append("an inference that overtook the change")
    end.set()
    with lease.read(timeout=20):
        order.append("second inference")
    first.join(20)
    writer.join(20)
    assert order == ["first inference", "change", "second inference"]


def test_a_thread_that_has_it_gets_it_again_while_a_change_waits(lease: Lease) -> None:
    with lease.read():
        writer = threading.Thread(target=lease.close, args=[20])
        writer.start()
        while not lease.is_closed:
            pass
        with lease.read(timeout=20):
            pass
    writer.join(20)
    assert not writer.is_alive()


def test_a_change_does_not_wait_for_ever_and_leaves_the_lease_open(lease: Lease) -> None:
    begun, end = threading.Event(), threading.Event()

    def infer() -> None:
        with lease.read():
            begun.set()
            end.wait(20)

    reader = threading.Thread(target=infer)
    reader.start()
    assert begun.wait(20)
    with pytest.raises(TimeoutError, match="did not end"):
        lease.close(0.01)
    with lease.read(timeout=20):
        pass
    end.set()
    reader.join(20)


def test_an_inference_that_fails_gives_the_lease_back(lease: Lease) -> None:
    with pytest.raises(ZeroDivisionError), lease.read():
        _ = 1 / 0
    lease.close(20)
