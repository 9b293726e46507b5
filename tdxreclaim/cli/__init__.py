"""The command line: parse, wire, print, exit; nothing is decided here."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

from tdxreclaim import __version__
from tdxreclaim.cli.output import (
    ClosedPipeError,
    StandardOutputError,
    emit,
    emit_error,
    flush,
    help_option,
)
from tdxreclaim.errors import BugError, ExitStatus, HostReadError, TdxReclaimError, UsageError

_STATUSES = "\n".join(f"  {status.value:>3}  {status.meaning}" for status in ExitStatus)

# Each is a module of its own here, imported when it is run, or asked for help.
_SECTIONS = {
    "Look at hosts": ("check", "triage", "capture", "watch", "fleet"),
    "Estimate": ("simulate", "drain", "sweep", "scenario", "calibrate"),
    "Connect": ("integration",),
    "Reference": ("explain", "findings", "errata", "schema"),
}
_COMMANDS = tuple(name for names in _SECTIONS.values() for name in names)


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's interface)
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"{__name__}.{cmd_name}"), cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in _COMMANDS and not name.startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(name.lower(), _COMMANDS, n=2)
            hint = f"; nearest: {', '.join(near)}" if near else ""
            raise UsageError(name, f"no such command{hint} (see tdxreclaim --help)")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        widest = max(map(len, _COMMANDS))
        for title, names in _SECTIONS.items():
            with formatter.section(title):
                rows = []
                for name in names:
                    command = self.get_command(ctx, name)
                    if command is not None:
                        rows.append((name.ljust(widest), command.get_short_help_str(80)))
                formatter.write_dl(rows)


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        emit(f"tdxreclaim {__version__}\n")
        ctx.exit()


@click.group(
    cls=_Commands,
    context_settings={"max_content_width": 100},
    add_help_option=False,
    epilog=f"\b\nExit status:\n{_STATUSES}\nEvery other status is reserved.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
@click.option(
    "--debug", is_flag=True, expose_value=False, help="Show the traceback of a bug in tdxreclaim."
)
@help_option
def cli() -> None:
    """Must a host clear the private pages that Intel TDX guests give back?

    Reads a CPU's identity (of this host, of a captured one, or faked), applies
    the table of errata, and says whether, why, on what evidence, and what the
    running kernel does.
    """


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status; never raises but for our bugs."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        _check_names(given)
        status = cli.main(given, prog_name="tdxreclaim", standalone_mode=False)
        flush()
    except StandardOutputError as error:
        _discard_stdout()
        return emit_error(error, [])
    except TdxReclaimError as error:
        return emit_error(error, given)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return ExitStatus.USAGE
    except click.UsageError as error:
        return emit_error(_usage(error), given)
    except (click.Abort, KeyboardInterrupt):
        return ExitStatus.INTERRUPTED
    except (ClosedPipeError, BrokenPipeError):
        _discard_stdout()
        return ExitStatus.CLOSED_PIPE
    return status if isinstance(status, int) else ExitStatus.NOT_REQUIRED


def _check_names(given: list[str]) -> None:
    """Refuse what no shell can give, and no file be named by.

    Raises:
        UsageError: an argument holds a NUL, or half a character.

    """
    for argument in given:
        try:
            holds_zero = b"\0" in os.fsencode(argument)
        except UnicodeEncodeError:
            holds_zero = True
        if holds_zero:
            raise UsageError("usage", f"no argument that a shell can give: {argument[:40]!r}")


def say_bug(error: Exception, given: list[str]) -> int:
    """Say a bug of ours in one line, in the format asked for; return its status."""
    if isinstance(error, MemoryError):
        return emit_error(HostReadError("memory", "there is not enough for this input"), given)
    if isinstance(error, ImportError) and not (error.name or "").startswith("tdxreclaim"):
        # A library is missing, or the system lets none be loaded.
        return emit_error(
            HostReadError(error.name or "Python", f"cannot be loaded ({error})"), given
        )
    import traceback

    if "--debug" in given:
        traceback.print_exception(error)
    last = traceback.extract_tb(error.__traceback__)[-1:]
    where = "".join(
        f" in {frame.name}, {os.path.basename(frame.filename)}:{frame.lineno}" for frame in last
    )
    why = (
        f"{type(error).__name__}: {error}{where} (tdxreclaim {__version__}; please report it with "
        "what --debug shows)"
    )
    return emit_error(BugError("bug", why), given)


def _usage(error: click.UsageError) -> UsageError:
    """Return click's error in our words: which option, and what is wrong with it."""
    what = "usage"
    message = error.format_message()
    if isinstance(error, click.BadParameter) and error.param is not None:
        option = isinstance(error.param, click.Option)
        what = error.param.opts[0] if option else str(error.param.name).upper()
        source = error.ctx.get_parameter_source(str(error.param.name)) if error.ctx else None
        if source is click.core.ParameterSource.ENVIRONMENT:
            what = str(error.param.envvar)
        message = error.message or message
        if isinstance(error, click.MissingParameter):
            message = "missing"
    elif isinstance(error, click.NoSuchOption | click.BadOptionUsage):
        what = error.option_name
        if isinstance(error, click.NoSuchOption):
            near = f"; nearest: {', '.join(error.possibilities)}" if error.possibilities else ""
            message = f"no such option{near}"
    command = error.ctx.command_path if error.ctx else "tdxreclaim"
    message = " ".join(message.split()).rstrip(".")
    return UsageError(what, f"{message} (see {command} --help)")


def _discard_stdout() -> None:
    """Send what is still buffered nowhere, or the interpreter fails on it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
