"""Signals wait where an exception in the middle of a thread pool could leave a lock of it taken for ever."""

import os
import signal
import threading
import time

import pytest

from converters.dataset.plan import Plan
from converters.staging import checkpoint
from converters.storage.object_store import side_by_side


@pytest.fixture
def running():
    """How many threads there were when Ctrl-C was handled."""
    found = []

    def interrupt(number, frame):
        found.append(threading.active_count())
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    yield found
    signal.signal(signal.SIGINT, before)


def slow(begun):
    def act(item, *_):
        if len(begun) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        begun.append(item)
        time.sleep(0.01)

    return act


def test_work_side_by_side_ends_first_and_soon(running):
    begun = []
    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        side_by_side(slow(begun), range(1_000))
    assert running == [threads]
    assert len(begun) < 100


def test_taking_up_shards_ends_first_and_soon(running, tmp_path, monkeypatch):
    begun = []
    threads = threading.active_count()
    monkeypatch.setattr(checkpoint, "load_result", slow(begun))
    for number in range(200):
        (tmp_path / f"{number}.json").touch()
    with pytest.raises(KeyboardInterrupt):
        checkpoint.finished_shards(tmp_path, tmp_path / "output", Plan(()))
    assert running == [threads]
    assert len(begun) < 100
    assert len(list(tmp_path.iterdir())) > 100


def test_a_handler_that_raises_nothing_ends_the_call_as_ctrl_c_does():
    """The finished shards stay then."""
    heard = []
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        with pytest.raises(KeyboardInterrupt):
            side_by_side(slow([]), range(1_000))
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT]
