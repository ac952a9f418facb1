"""Runs the command many times in forked processes, a fault in each; started by ``test_faults.py`` with inject.so.

Reads a JSON line per run from standard input and answers each with one on standard output. The imports are made
once, here, so that a run takes some tens of milliseconds.
"""

import ctypes
import json
import os
import signal
import sys
import tempfile
import threading
import time
import traceback

import pyarrow.compute
import pyarrow.parquet  # noqa: F401  # before the first fork

from converters.cli.main import main
from converters.formats import available_formats

INJECT = ctypes.CDLL(None)
INJECT.inject_name.restype = ctypes.c_char_p


def run(request: dict) -> dict:
    """One run of the command with the given arguments and fault, in a process of its own."""
    with (
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as errors,
        tempfile.TemporaryFile() as state,
    ):
        process = os.fork()
        if process == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            status = 70
            INJECT.inject_arm(request.get("call", -1), request.get("mode", 1))
            try:
                main(request["arguments"])
            except SystemExit as stop:
                status = stop.code or 0
            except BaseException:  # noqa: BLE001  # a bug: the test shall see it
                os.write(2, traceback.format_exc().encode())
            finally:
                names = [INJECT.inject_name(call).decode() for call in range(1, INJECT.inject_calls() + 1)]
                INJECT.inject_arm(-1, 0)
                sys.stdout.flush()
                sys.stderr.flush()
                os.pwrite(state.fileno(), json.dumps(names).encode(), 0)
                os._exit(status)
        if "kill_after" in request:
            time.sleep(request["kill_after"])
            os.kill(process, request.get("signal", signal.SIGKILL))
        started = time.monotonic()
        _, code = os.waitpid(process, 0)
        output.seek(0)
        errors.seek(0)
        state.seek(0)
        return {
            "status": os.waitstatus_to_exitcode(code),
            "output": output.read().decode(),
            "errors": errors.read().decode(),
            "calls": json.loads(state.read() or b"[]"),
            "seconds": time.monotonic() - started,
        }


if __name__ == "__main__":
    assert threading.active_count() == 1
    available_formats()  # once, for all that are forked
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
