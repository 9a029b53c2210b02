"""The last wall: every way a command can end, as one message and one exit code."""

from __future__ import annotations

import errno
import functools
import os
import signal
import sys
import tempfile
import threading
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, ParamSpec

import typer

from omnisat_cli.cli.console import complain, debugging, note
from omnisat_cli.errors import Exit, OmnisatError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType, TracebackType

P = ParamSpec("P")

FOREIGN_PROJ = tuple(name for name in ("PROJ_DATA", "PROJ_LIB") if os.environ.get(name))
"""PROJ variables found at start; `sources.safe` drops them."""


_INTERRUPTED = "interrupted; the same command goes on with a map that was begun"


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """End a command with a message and an exit code instead of a traceback."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except OmnisatError as error:
            raise _end(str(error), error.exit_code) from error
        except KeyboardInterrupt as error:
            raise _end(_INTERRUPTED, Exit.INTERRUPTED) from error
        except MemoryError as error:
            text = "out of memory; close other programs, or use a smaller --memory or --block"
            raise _end(text, Exit.RESOURCES) from error
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            raise _end(f"no space left: {error}", Exit.RESOURCES) from error

    return run


def _end(message: str, code: Exit) -> typer.Exit:
    if debugging():
        note(traceback.format_exc())
    complain(message, code)
    return typer.Exit(int(code))


def show_crash(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Report an error nobody foresaw in one line and keep its traceback in a file.

    This is an exception hook: Python ends with exit code 1 after it.
    """
    text = "".join(traceback.format_exception(kind, error, trace))
    first = (str(error).splitlines() or [""])[0]
    if debugging() or os.environ.get("OMNISAT_DEBUG"):
        note(text)
        place = "above"
    else:
        place = f"in {kept}" if (kept := _keep(text)) else "shown by OMNISAT_DEBUG=1"
    message = (
        f"unexpected {kind.__name__}: {first}\n"
        f"this is a fault of omnisat, please report it; its traceback is {place}"
    )
    complain(message, Exit.INTERNAL)


def _keep(text: str) -> str:
    """Write a traceback to a file of its own; "" where that is not possible."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="omnisat-", suffix=".log", delete=False, encoding="utf-8"
        ) as stream:
            stream.write(text)
        return stream.name
    except OSError:
        return ""


@contextmanager
def stoppable(work: str = "the block in work") -> Iterator[threading.Event]:
    """Turn the first SIGINT or SIGTERM into a wish to stop; a second one stops at once.

    Args:
        work: What is finished first, for the message.

    Yields:
        Set when the user, or a scheduler, wants the run to end after the block in work.
    """
    stop = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        note(f"stopping after {work}; once more to stop at once")

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_on_term() -> None:
    """Let SIGTERM end a command like Ctrl-C does, so that locks and temporary files go."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)


def install() -> None:
    """Install what a process needs that a command called from a test does not."""
    sys.excepthook = show_crash
    end_on_term()
