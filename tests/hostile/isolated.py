"""Runs kfer-convert in processes of their own, and measures each.

A new interpreter takes most of a second to import what it needs. So one process, this file as a program, imports
it once and forks for every call; each call has its own memory, its own time limit, and may crash.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

KILLED_AFTER_SECONDS = 120


@dataclass(frozen=True)
class Run:
    """How a call ended; ``status`` is negative where a signal ended it, as where it takes too long.

    ``seconds`` are of processor time, which does not depend on what else the machine does; ``megabytes`` are the
    peak of memory.
    """

    status: int
    out: str
    err: str
    seconds: float
    megabytes: float


class Isolated:
    """The process that forks."""

    def __init__(self) -> None:
        environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def __call__(self, *arguments: object) -> Run:
        self._process.stdin.write(json.dumps([str(argument) for argument in arguments]) + "\n")
        self._process.stdin.flush()
        return Run(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def _serve() -> None:
    import yaml  # noqa: F401

    import converters.api
    import converters.cli.main
    import converters.convert.run
    import converters.engines.local
    import converters.formats.parquet
    import converters.formats.readme
    import converters.formats.tfrecord.source
    import converters.verify.against_source
    import converters.verify.output  # noqa: F401
    from converters.plugins import registered

    for group in ("kfer_convert.formats", "kfer_convert.engines"):
        registered(group)  # finding what is installed takes most of the time of a small conversion
    for line in sys.stdin:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            start = time.monotonic()
            child = os.fork()
            if not child:
                _run(json.loads(line), out.fileno(), err.fileno())
            status, usage = _wait(child, start + KILLED_AFTER_SECONDS)
            seconds = usage.ru_utime + usage.ru_stime
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read(1 << 20).decode(errors="replace"))
        peak = usage.ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)
        answer = Run(os.waitstatus_to_exitcode(status), *texts, seconds, peak)
        sys.__stdout__.write(json.dumps(vars(answer)) + "\n")
        sys.__stdout__.flush()


def _wait(child: int, deadline: float):
    while True:
        found, status, usage = os.wait4(child, os.WNOHANG)
        if found:
            return status, usage
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)


def _run(arguments: list[str], out: int, err: int) -> None:
    os.dup2(out, 1)
    os.dup2(err, 2)
    status = 99
    try:
        converters_main(arguments)
    except SystemExit as stop:
        status = stop.code or 0
    except BaseException:  # noqa: BLE001  # a bug: the test shall see it
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def converters_main(arguments: list[str]) -> None:
    from converters.cli.main import main

    main(arguments)


if __name__ == "__main__":
    sys.path.remove(str(Path(__file__).parent))
    _serve()
