"""Batches made ahead in a thread are the same batches, and the thread ends with who takes them, whatever interrupts."""

import sys
import threading
from contextlib import closing

import pyarrow as pa
import pytest

from converters.dataset import ahead as module
from converters.dataset.ahead import ahead


def batches(count: int = 5, made: list[int] | None = None):
    for number in range(count):
        if made is not None:
            made.append(number)
        yield pa.record_batch({"number": [number] * 1000})


def test_the_same_batches_in_order():
    with closing(ahead(batches())) as taken:
        assert list(taken) == list(batches())


def test_an_error_is_raised_where_the_batches_are_taken():
    def fails():
        yield from batches(2)
        raise KeyError("x")

    with closing(ahead(fails())) as taken:
        assert [next(taken), next(taken)] == list(batches(2))
        with pytest.raises(KeyError, match="x"):
            next(taken)


def test_no_more_are_made_than_there_is_room_for_and_none_after_it_is_closed(monkeypatch):
    size = next(batches()).nbytes
    monkeypatch.setattr(module, "_ROOM_BYTES", 3 * size)
    threads, made = set(threading.enumerate()), []
    with closing(ahead(batches(100, made))) as taken:
        for number in range(10):
            next(taken)
            assert len(made) <= number + 1 + 3 + 1  # taken, waiting, and the one that waits for room
    assert set(threading.enumerate()) <= threads
    assert len(made) < 20
    monkeypatch.setattr(module, "_ROOM_BYTES", 1)  # less than a batch
    with closing(ahead(batches())) as taken:
        assert list(taken) == list(batches())


def test_an_interrupt_at_any_line_or_return_leaves_no_lock_taken(monkeypatch):
    monkeypatch.setattr(module, "_ROOM_BYTES", 1)  # so that the thread waits
    for moment in range(1, 1000):
        interrupted = []

        def take(moment: int = moment, interrupted: list[bool] = interrupted) -> None:
            left = moment

            def trace(frame, event, _):
                nonlocal left
                if interrupted or frame.f_code.co_filename not in (module.__file__, threading.__file__):
                    return trace
                left -= 1
                if not left:
                    interrupted.append(True)
                    raise KeyboardInterrupt
                return trace

            with closing(ahead(batches(3))) as taken:
                next(taken)
                sys.settrace(trace)
                taken.gi_frame.f_trace = trace
                try:
                    for _ in taken:
                        pass
                except KeyboardInterrupt:
                    pass
                finally:
                    sys.settrace(None)

        taker = threading.Thread(target=take, daemon=True)
        taker.start()
        taker.join(10)
        assert not taker.is_alive(), f"it hangs after an interrupt at moment {moment}"
        if not interrupted:
            assert moment > 5
            return
    pytest.fail("it never came to its end")
