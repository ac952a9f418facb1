"""Makes record batches in a thread beside the one that takes them, so that one shard keeps two cores busy."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable

import pyarrow as pa

# Batches that wait, in bytes: what is made while a row group of Parquet is written.
_ROOM_BYTES = 32 << 20


def ahead(batches: Iterable[pa.RecordBatch]) -> Generator[pa.RecordBatch, None, None]:
    """The same batches; a thread makes them, some megabytes before they are taken.

    What it raises is raised here. To be closed, as by :class:`contextlib.closing`: then the thread has ended.
    """
    made: deque[pa.RecordBatch | BaseException | None] = deque()
    changed = threading.Condition()
    waiting = 0
    wanted = True

    def put(item: pa.RecordBatch | BaseException | None, size: int) -> bool:
        nonlocal waiting
        with changed:
            changed.wait_for(lambda: not wanted or not made or waiting + size <= _ROOM_BYTES)
            made.append(item)
            waiting += size
            changed.notify()
            return wanted

    def make() -> None:
        end: BaseException | None = None
        try:
            for batch in batches:
                if not put(batch, batch.nbytes):
                    return
                del batch  # it may be large, and the next one takes its time
        except BaseException as error:  # noqa: BLE001  # raised again where the batches are taken
            end = error
        put(end, 0)

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while True:
            with changed:
                changed.wait_for(lambda: made)
                item = made.popleft()
                waiting -= 0 if item is None or isinstance(item, BaseException) else item.nbytes
                changed.notify()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                return
            yield item
            del item
    finally:
        with changed:
            wanted = False
            changed.notify()
        thread.join()
