"""``python -m converters`` is ``kfer-convert``.

Processes of one's own import this module again, so the command line is imported only to be run.
"""

import gc
import os
import sys

_ALLOCATIONS = 200_000  # between two collections, more than importing takes; 700 in Python itself
_SIGNALLED = 128  # and the signal's number: the exit status of a program that a signal ended


def main() -> None:
    """Run the command line and exit with its status."""
    if sys.platform == "win32":
        sys.stderr.write("kfer-convert: this program runs on Linux, macOS or WSL, not on Windows itself.\n")
        raise SystemExit(2)
    # NumPy comes with a library for linear algebra, of which nothing is used here, and which starts a thread a core
    # when it is loaded; these spin for a while, here and in every worker process, and take the cores from the work.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # What is imported stays, and batches hold no cycles: looking through all of it again and again finds nothing.
    gc.set_threshold(_ALLOCATIONS)
    try:
        from converters.cli.main import main
    except KeyboardInterrupt:
        # Nothing has begun yet; the import takes long enough to be interrupted.
        raise SystemExit(_SIGNALLED + 2) from None
    try:
        main()
    except SystemExit as stop:
        if isinstance(stop.code, int) and stop.code > _SIGNALLED:
            # All is tidied up and said. Python would now wait for threads, and one that a signal struck within a
            # thread pool may wait for ever. Semaphores of a pool that is gone would be reported as leaked.
            gc.collect()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(stop.code)
        gc.freeze()  # Python's own last collection would look through all that was imported
        raise


if __name__ == "__main__":
    main()
