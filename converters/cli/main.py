"""The command line: its commands, and what each way to end becomes an exit status."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import click

from converters.cli import EPILOG, EXIT_FAILED, EXIT_INTERRUPTED
from converters.cli.convert import convert
from converters.cli.docs import docs
from converters.cli.formats import formats
from converters.cli.inspect import inspect
from converters.cli.options import UPLOAD
from converters.cli.push import push
from converters.cli.sample import sample
from converters.cli.show import show
from converters.cli.streams import close, tolerate
from converters.cli.tables import show_error, show_failure
from converters.cli.verify import verify
from converters.errors import OUT_OF_MEMORY, ConverterError

_OWN_OPTIONS = ("--help", "-h", "--version", "-V")

# Of <malloc.h>: one heap for all threads; what is larger than any buffer of a batch of small images is given back, and
# of the rest so much is kept for the next batch.
_MALLOC = (
    ("MALLOC_MMAP_THRESHOLD_", -3, 16 << 20),
    ("MALLOC_ARENA_MAX", -8, 1),
    ("MALLOC_TRIM_THRESHOLD_", -1, 64 << 20),
)


class _DefaultsToConvert(click.Group):
    """A group whose command ``convert`` need not be named; its options stand in the group's own help."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``convert`` before arguments that name no command."""
        if args and args[0] not in self.commands and args[0] not in _OWN_OPTIONS:
            has_format = any(arg == "--to" or arg.startswith("--to=") for arg in args)
            if not has_format and not args[0].startswith("-") and not _may_be_there(args[0]):
                raise click.UsageError(
                    f"No command and no folder is called {args[0]!r}. Commands: {', '.join(sorted(self.commands))}."
                )
            args = ["convert", *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Both forms of a call."""
        formatter.write_usage(ctx.command_path, "[SOURCE] --to FORMAT [--out DIR] [OPTIONS]")
        formatter.write_usage(ctx.command_path, "COMMAND [ARGS]...", prefix="   or: ")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The conversion's options, then the commands."""
        own = [option for option in convert.get_params(ctx) if isinstance(option, click.Option)]
        for title, options in (
            ("Options", [option for option in own if option not in UPLOAD]),
            ("Options of push and --push-to-hub", UPLOAD),
        ):
            with formatter.section(title):
                formatter.write_dl([record for option in options if (record := option.get_help_record(ctx))])
        self.format_commands(ctx, formatter)


def _may_be_there(text: str) -> bool:
    """Whether something can be called so: a file or folder that is there, or anything in a store."""
    return "://" in text or Path(text).exists()


@click.group(
    cls=_DefaultsToConvert,
    commands=[convert, docs, formats, inspect, push, sample, show, verify],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=EPILOG,
)
@click.version_option(None, "--version", "-V", package_name="kfer-convert")
def cli() -> None:
    """Convert a dataset from one layout to another, and prove that nothing was lost or changed.

    SOURCE is TFRecords of tf.train.Example (a folder, a file, a pattern or a URL) or an output of this program, in any
    of its formats; ./tfrecords by default.
    """


class _Terminated(KeyboardInterrupt):
    """A signal that ends programs; like Ctrl-C, it leaves time to clean up."""


def _terminate(number: int, _frame: object) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # many send it twice, which would strike while all is tidied up
    raise _Terminated(number)


def _end_by_signals() -> None:
    """From now on a signal ends this program at once: all is tidied up, and only words are left, which may block."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its status."""
    out = tolerate()
    arguments = sys.argv[1:] if arguments is None else arguments
    status = _run(arguments)
    _end_by_signals()
    lost = close(out)
    # The output of these is what they print; of the others, it is in place, whatever happens to the terminal.
    printing = {"docs", "formats", "inspect"} & set(arguments)
    sys.exit(EXIT_FAILED if lost is not None and printing and not status else status)


def _spare_memory() -> None:
    """Have this process and its workers give memory back that was freed."""
    # Arrow's own allocators keep what was freed; the system's takes a fifth less memory here, in the same time.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    # The C library of most Linux systems keeps pieces of up to 32 MiB, once there were such, and a heap for each of
    # several threads: images of 20 MB took twice as much memory, and many shards half as much again. It reads the
    # variables when a process starts, so this one is told by mallopt(3).
    for name, number, value in _MALLOC:
        os.environ.setdefault(name, str(value))
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(number, value)


def _run(arguments: Sequence[str]) -> int:
    """Run the command line; its exit status."""
    as_json = "--json" in arguments
    _spare_memory()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _terminate)
    try:
        cli.main(list(arguments), prog_name="kfer-convert", standalone_mode=False)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except click.ClickException as error:
        if as_json:
            click.echo(json.dumps({"error": error.format_message()}, ensure_ascii=False))
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as stop:
        _end_by_signals()
        # click turns what interrupts it into an Abort.
        signalled = stop if isinstance(stop, _Terminated) else stop.__cause__
        notes = getattr(stop.__cause__ or stop, "__notes__", ["interrupted; nothing was published."])
        show_error(notes[0], as_json=as_json)
        return 128 + signalled.args[0] if isinstance(signalled, _Terminated) else EXIT_INTERRUPTED
    except ConverterError as error:
        show_failure(error, as_json=as_json)
        return error.exit_status
    except MemoryError:
        show_error(f"{OUT_OF_MEMORY}.", as_json=as_json)
        return EXIT_FAILED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        show_error(f"{where}{error.strerror or error}.", as_json=as_json)
        return EXIT_FAILED
    return 0
