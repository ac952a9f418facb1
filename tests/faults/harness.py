"""Runs the command many times in forked processes, a fault in each; started by ``test_faults.py`` with inject.so.

Reads a JSON line per run from standard input and answers each with one on standard output. All that a run imports is
imported once, here: it takes longer than the run itself.
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
from importlib import import_module

from converters.cli.main import main
from converters.plugins import registered

IMPORTED_LATER = (
    "converters.api",
    "converters.convert.run",
    "converters.engines.local",
    "converters.formats.hf",
    "converters.formats.jpeg",
    "converters.formats.readme",
    "converters.formats.tfrecord.source",
    "jinja2",
    "pyarrow.csv",
    "yaml",
)
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
    for module in IMPORTED_LATER:
        import_module(module)
    for group in ("kfer_convert.formats", "kfer_convert.engines"):
        registered(group)
    assert threading.active_count() == 1
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
