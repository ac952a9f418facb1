"""Makes record batches in a thread beside the one that takes them, so that one shard keeps two cores busy."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable
from queue import SimpleQueue

import pyarrow as pa

# Batches that wait, in bytes: what is made while a row group of Parquet is written.
_ROOM_BYTES = 12 << 20


def ahead(batches: Iterable[pa.RecordBatch]) -> Generator[pa.RecordBatch, None, None]:
    """The same batches; a thread makes them, some megabytes before they are taken.

    What it raises is raised here. To be closed, as by :class:`contextlib.closing`: then the thread has ended.
    """
    # Queues of this kind hold no lock while Python runs, so that a Ctrl-C here never leaves one taken for ever.
    made: SimpleQueue[pa.RecordBatch | BaseException | None] = SimpleQueue()
    taken: SimpleQueue[int | None] = SimpleQueue()  # sizes of batches; None when no more are wanted

    def make() -> None:
        end: BaseException | None = None
        waiting = 0
        try:
            for batch in batches:
                size = batch.nbytes
                while not taken.empty() or (waiting and waiting + size > _ROOM_BYTES):
                    freed = taken.get()
                    if freed is None:
                        return
                    waiting -= freed
                waiting += size
                made.put(batch)
                del batch  # it may be large, and the next one takes its time
        except BaseException as error:  # noqa: BLE001  # raised again where the batches are taken
            end = error
        made.put(end)

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while (item := made.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            taken.put(item.nbytes)
            yield item
            del item
    finally:
        taken.put(None)
        thread.join()
