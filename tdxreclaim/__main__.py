"""The entry point: ``tdxreclaim`` and ``python -m tdxreclaim``."""

import os
import sys

# `python -m` looks for modules in the current directory first; whoever owns
# that directory would run code as us.
if __name__ == "__main__" and not sys.flags.safe_path:
    _PACKAGES = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.path[:1] = [entry for entry in sys.path[:1] if entry == _PACKAGES]

import contextlib
import gc
import signal
from typing import NoReturn

# Collecting garbage while modules load finds none and costs a twelfth of the
# start-up.  A command that works for long turns it on again.
gc.disable()

# Of ExitStatus, before anything is imported.
_INTERRUPTED = 130
_BAD_INPUT = 3

try:
    from tdxreclaim.cli import main, say_bug
except KeyboardInterrupt:
    os._exit(_INTERRUPTED)
except (ImportError, MemoryError) as error:
    # A library is missing, the system lets none be loaded, or there is no memory for it.
    if "--debug" in sys.argv:
        raise
    _WHAT = getattr(error, "name", None) or "Python"
    sys.stderr.write(
        f"tdxreclaim: {_WHAT}: cannot be loaded ({str(error) or 'too little memory'})\n"
    )
    sys.stderr.flush()
    os._exit(_BAD_INPUT)


def run() -> NoReturn:
    """Run the command line and end the process with its exit status.

    Taking the interpreter apart again costs a fifth of a short run and does
    nothing for us: every file is closed and every stream flushed by now.
    """
    _end_like_ctrl_c()
    try:
        status = main()
    except KeyboardInterrupt:
        status = _INTERRUPTED
    except Exception as error:  # noqa: BLE001  (the one guard)
        status = _say(error)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            # What can be said of a stream that cannot be written, main() has said.
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    os._exit(status)


def _say(error: Exception) -> int:
    if isinstance(error, MemoryError) and "--debug" not in sys.argv:
        error.__traceback__ = None  # lets go of what the frames hold
    try:
        return say_bug(error, sys.argv[1:])
    except MemoryError:
        os.write(2, b"tdxreclaim: memory: there is not enough to go on\n")
        return _BAD_INPUT


def _end_like_ctrl_c() -> None:
    """Let SIGTERM and SIGHUP (unless nohup ignores it) clean up as Ctrl-C does."""

    def interrupt(_number: int, _frame: object) -> NoReturn:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, interrupt)


if __name__ == "__main__":
    run()
