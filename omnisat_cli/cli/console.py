"""What the command says: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from omnisat_cli.errors import Exit

OURS = "omnisat_cli"
"""Root of our loggers."""


def say(text: str = "") -> None:
    """Write a line of the result to stdout; a reader that went away (`| head`) is no error."""
    try:
        typer.echo(text)
    except BrokenPipeError:
        _drop(sys.stdout)


def say_json(content: object) -> None:
    """Write the one machine-readable object of a command to stdout."""
    say(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, default=str))


def note(text: str) -> None:
    """Write a line about the work to stderr; where nobody can read it, it is lost."""
    try:
        typer.echo(text, err=True)
    except OSError:  # closed, or a log on a full disk: not a reason to stop mapping
        _drop(sys.stderr)


def complain(message: str, code: Exit) -> None:
    """Write an error: the first line says what is wrong, the last carries the exit code."""
    first, *hints = message.strip().splitlines() or ["unknown error"]
    lines = [f"error: {first}", *(f"  {hint.strip()}" for hint in hints)]
    lines[-1] += f"  [exit {int(code)}]"
    note("\n".join(lines))


def columns(rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
    """Lay cells out in left-aligned columns; the last column is as long as it likes."""
    if not rows:
        return []
    count = max(map(len, rows))
    widths = [
        max((len(row[place]) for row in rows if place < len(row) - 1), default=0)
        for place in range(count)
    ]
    return [
        indent
        + "  ".join(
            cell if place == len(row) - 1 else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
        for row in rows
    ]


class _Lines(logging.Handler):
    """Log records as lines on stderr, above a progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        text = f"{level}{record.getMessage()}"
        if record.exc_info and logging.getLogger(OURS).isEnabledFor(logging.DEBUG):
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        tqdm = sys.modules.get("tqdm")
        if tqdm is not None and sys.stderr.isatty():
            with tqdm.tqdm.external_write_mode(file=sys.stderr):
                note(text)
        else:
            note(text)


def set_up_logging(verbose: int, quiet: bool) -> None:
    """Send log records to stderr: warnings, with -v progress, with -v -v everything.

    Args:
        verbose: How often -v was given; OMNISAT_DEBUG counts as twice.
        quiet: Errors only.
    """
    if os.environ.get("OMNISAT_DEBUG"):
        verbose = max(verbose, 2)
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logger = logging.getLogger(OURS)
    logger.setLevel(logging.ERROR if quiet else level)
    for handler in [h for h in logger.handlers if isinstance(h, _Lines)]:
        logger.removeHandler(handler)
    logger.addHandler(_Lines())
    # Warnings of libraries are for their developers; with -v -v they are shown.
    logging.captureWarnings(True)
    libraries = logging.getLogger("py.warnings")
    libraries.handlers = [_Lines() if verbose > 1 else logging.NullHandler()]
    libraries.propagate = False


def debugging() -> bool:
    """Whether the user asked for tracebacks."""
    return logging.getLogger(OURS).isEnabledFor(logging.DEBUG)


def _drop(stream: TextIO) -> None:
    """Send what is still to come, at exit too, to nowhere."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):  # no descriptor behind it: nothing to flush at exit either
        return
