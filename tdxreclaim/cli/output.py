"""Where results and diagnostics go, and how they get there whole."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import click

from tdxreclaim.cli import completion
from tdxreclaim.errors import OutputError, TdxReclaimError, UsageError
from tdxreclaim.report import document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

FORMATS = ("text", "json", "shell")


class Variable(StrEnum):
    """What is read of the environment: how things look, and the date of a capture.

    Never a fact, a what-if, --quiet or --exit-zero (tests/cli/test_environment.py).
    """

    FORMAT = "TDXRECLAIM_FORMAT"
    COLOR = "TDXRECLAIM_COLOR"
    CALIBRATION = "TDXRECLAIM_CALIBRATION"
    WIDTH = "TDXRECLAIM_WIDTH"
    COLUMNS = "COLUMNS"
    """By `shutil.get_terminal_size()`."""
    NO_COLOR = "NO_COLOR"
    FORCE_COLOR = "FORCE_COLOR"
    TERM = "TERM"
    SOURCE_DATE_EPOCH = "SOURCE_DATE_EPOCH"
    COMPLETE = "_TDXRECLAIM_COMPLETE"
    """By click."""

    def read(self) -> str:
        """Return its value, empty if it is not set."""
        return os.environ.get(self, "")


_WIDEST_TEXT = 100  # longer lines are hard to read
_LONGEST_SAID = 1000  # of what an error is about, and of why
_LEAST_WIDTH, _MOST_WIDTH = 40, 1000
_NO_TERMINAL = 80

color_option = click.option(
    "--color",
    type=click.Choice(("auto", "always", "never")),
    default="auto",
    show_default=True,
    envvar=Variable.COLOR.value,
    help="When to colour; overrides NO_COLOR and FORCE_COLOR.",
)


output_option = click.option(
    "--output",
    "-o",
    metavar="FILE",
    shell_complete=completion.files,
    help="Write to FILE atomically; - is standard output.",
)


def format_option(*formats: str) -> Callable[..., Any]:
    """Return the option ``--format`` of a command that has these."""
    return click.option(
        "--format",
        "-f",
        "format_",
        type=click.Choice(formats),
        default="text",
        show_default=True,
        envvar=Variable.FORMAT.value,
    )


text_or_json_option = format_option("text", "json")


calibration_option = click.option(
    "--calibration",
    metavar="NAME|FILE",
    default="published",
    show_default=True,
    envvar=Variable.CALIBRATION.value,
    shell_complete=completion.calibrations,
    help="What the steps of a shutdown cost.",
)


class StandardOutputError(OutputError):
    """Standard output cannot be written."""


class ClosedPipeError(Exception):
    """The reader of standard output went away."""


def _show_help(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from tdxreclaim.cli.examples import EXAMPLES

        example = EXAMPLES.get(ctx.command_path.partition(" ")[2])
        shown = f"\nExample:\n  {example}\n" if example else ""
        emit(f"{ctx.get_help()}\n{shown}")
        ctx.exit()


# click's own help option looks up a translation on every start, which costs
# more than a millisecond; commands use this one, with add_help_option=False.
help_option = click.option(
    "-h",
    "--help",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_help,
    help="Show this message and exit.",
)


def wants_color(choice: str, path: str | None = None) -> bool:
    """Return the one rule for colour, for click and rich alike.

    ``--color always|never`` over ``NO_COLOR`` over ``FORCE_COLOR`` (set and
    not empty) over the terminal.  A file, at *path*, is coloured only by
    ``always``.
    """
    if choice != "auto":
        return choice == "always"
    if path is not None and path != "-":
        return False
    if Variable.NO_COLOR.read():
        return False
    if Variable.FORCE_COLOR.read():
        return True
    return draws_on_terminal()


def draws_on_terminal() -> bool:
    """Whether standard output is a terminal that can more than print lines."""
    terminal = sys.stdout is not None and sys.stdout.isatty()
    return terminal and Variable.TERM.read() not in ("", "dumb")


def terminal_width() -> int:
    """Return the columns to write for: TDXRECLAIM_WIDTH, else COLUMNS or the terminal's up to 100.

    Raises:
        UsageError: TDXRECLAIM_WIDTH is no number of columns.

    """
    wanted = Variable.WIDTH.read()
    if wanted:
        if not re.fullmatch(r"[0-9]{1,4}", wanted) or not (
            _LEAST_WIDTH <= int(wanted) <= _MOST_WIDTH
        ):
            raise UsageError(Variable.WIDTH, f"expected {_LEAST_WIDTH} to {_MOST_WIDTH} columns")
        return int(wanted)
    return min(_columns(), _WIDEST_TEXT)


def _columns() -> int:
    """Return what `shutil.get_terminal_size` does; with it come all compressions, which take 2 ms."""
    with contextlib.suppress(KeyError, ValueError):
        if (columns := int(os.environ["COLUMNS"])) > 0:
            return columns
    if sys.__stdout__ is not None:
        with contextlib.suppress(ValueError, OSError):
            return os.get_terminal_size(sys.__stdout__.fileno()).columns or _NO_TERMINAL
    return _NO_TERMINAL


def shows_blocks() -> bool:
    """Whether standard output can show block characters."""
    encoding = getattr(sys.stdout, "encoding", None) or ""
    return encoding.lower().replace("-", "") == "utf8"


def emit(text: str, path: str | None = None, *, color: bool = False) -> None:
    """Print *text*, or put it whole into the file at *path* (``-`` prints).

    Raises:
        OutputError: the file, or standard output, cannot be written.
        ClosedPipeError: the reader of standard output went away.

    """
    if path is not None and path != "-":
        write_whole(path, text)
        return
    if sys.stdout is None:
        raise OutputError("standard output", "it is closed")
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        # A terminal that cannot show a character is no reason to fail.
        reconfigure(errors="replace")
    try:
        click.echo(text, nl=False, color=color)
    except OSError as error:
        raise _unwritten(error) from error


def write_whole(path: str, text: str) -> None:
    """Write *text* to *path* as `write_bytes_whole` does.

    Raises:
        OutputError: it cannot be written; what was there is untouched.

    """
    write_bytes_whole(path, text.encode("utf-8", "replace"))


def emit_chunks(chunks: Iterable[str], path: str | None) -> None:
    """Write a result that may be long, piece by piece, to *path* or standard output.

    Raises:
        ClosedPipeError: the reader of standard output went away.
        OutputError: it cannot be written; what was there is untouched.

    """
    if path is not None and path != "-":
        _write_whole(path, (chunk.encode("utf-8") for chunk in chunks))
        return
    for chunk in chunks:
        emit(chunk)


def emit_bytes_chunks(chunks: Iterable[bytes], path: str) -> None:
    """Write *chunks* to *path* as `_write_whole` does.

    Raises:
        OutputError: it cannot be written; what was there is untouched.

    """
    _write_whole(path, chunks)


def write_bytes_whole(path: str, data: bytes) -> None:
    """Write *data* to *path* as `_write_whole` does.

    Raises:
        OutputError: it cannot be written; what was there is untouched.

    """
    _write_whole(path, (data,))


def _write_whole(path: str, chunks: Iterable[bytes]) -> None:
    """Write *chunks* beside *path*, then move it into place, so that no reader sees a part.

    An existing file keeps its mode; a link is followed, so that it stays a
    link; a device or FIFO is written to directly.

    Raises:
        OutputError: it cannot be written; what was there is untouched.

    """
    if not path:
        raise UsageError("--output", "the name is empty")
    try:
        target = os.path.realpath(path)
        # Short, so that it fits beside the longest name.
        temporary = os.path.join(os.path.dirname(target), f".tdxreclaim.{os.getpid()}.tmp")
        mode = _mode(path)
        if mode is not None and not stat.S_ISREG(mode):
            # By the name that was given: what /dev/stdout leads to may have none.
            with open(path, "wb") as device:
                device.writelines(chunks)
            return
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(chunks)
                file.flush()
                os.fsync(file.fileno())
                if mode is not None:
                    os.fchmod(file.fileno(), stat.S_IMODE(mode))
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise OutputError(path, error.strerror or str(error)) from error


def emit_bytes(data: bytes) -> None:
    """Write *data* to standard output.

    Raises:
        ClosedPipeError: the reader of standard output went away.

    """
    if sys.stdout is None:
        raise OutputError("standard output", "it is closed")
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        raise _unwritten(error) from error


def flush() -> None:
    """Write what is still buffered of standard output.

    Raises:
        ClosedPipeError: the reader of standard output went away.
        OutputError: it cannot be written.

    """
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError as error:
            raise _unwritten(error) from error


def _unwritten(error: OSError) -> Exception:
    """Return what to raise where standard output cannot be written."""
    if isinstance(error, BrokenPipeError):
        # Of its own kind, or click would make it an exit status of 1.
        return ClosedPipeError()
    return StandardOutputError("standard output", error.strerror or str(error))


def _mode(path: str) -> int | None:
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None


def refuse_with_nagios(ctx: click.Context, *, exit_zero: bool) -> None:
    """Refuse what would hide the status of a monitoring plugin, or change one unasked.

    Raises:
        UsageError: --exit-zero, or the format is the environment's.

    """
    if exit_zero:
        raise UsageError("--exit-zero", "contradicts --format nagios, whose status is the answer")
    if ctx.get_parameter_source("format_") is click.core.ParameterSource.ENVIRONMENT:
        # It changes the status, which no environment may do.
        raise UsageError("TDXRECLAIM_FORMAT", "nagios has to be given as --format nagios")


def emit_error(error: TdxReclaimError, arguments: Sequence[str]) -> int:
    """Say an error on stderr, and in the format asked for on stdout; return its status."""
    from tdxreclaim.facts.evidence import flat

    wanted = requested_format(arguments)
    render = _error_renderer(wanted)
    if render is not None:
        with contextlib.suppress(OSError):
            click.echo(render(error), nl=False)
    with contextlib.suppress(OSError):
        line = f"tdxreclaim: {_shortened(flat(error.what))}: {_shortened(flat(error.why))}"
        click.echo(line, err=True)
    return error.exit_status.nagios if wanted == "nagios" else error.exit_status


def _shortened(text: str) -> str:
    """Return *text*, a long one without its middle: what was given may have any length."""
    half = _LONGEST_SAID // 2
    return text if len(text) <= _LONGEST_SAID else f"{text[:half]} ... {text[-half:]}"


def requested_format(arguments: Sequence[str]) -> str:
    """Return the ``--format`` on a command line, even of one that does not parse."""
    wanted = Variable.FORMAT.read() or "text"
    if wanted == "nagios":  # it changes the status, which no environment may do
        wanted = "text"
    for number, argument in enumerate(arguments):
        if argument == "--":
            break
        if argument in ("-f", "--format"):
            wanted = next(iter(arguments[number + 1 : number + 2]), wanted)
        elif argument.startswith("--format="):
            wanted = argument.partition("=")[2]
        elif argument.startswith("-f") and not argument.startswith("--"):
            wanted = argument[2:]
    return wanted


def _error_renderer(wanted: str) -> Callable[[TdxReclaimError], str] | None:
    if wanted == "json":
        return document.render_error
    if wanted == "shell":
        from tdxreclaim.report import shell

        return shell.render_error
    if wanted in ("jsonl", "nagios"):
        from importlib import import_module

        module = import_module(f"tdxreclaim.report.check.{wanted}")
        rendered: Callable[[TdxReclaimError], str] = module.render_error
        return rendered
    return None
