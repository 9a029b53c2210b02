"""Typed errors, each with the exit code it means.

Every message says what was asked, what was found (numbers, units, path) and what to do.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of the command: a contract with scripts and schedulers."""

    COMPLETE = 0
    INTERNAL = 1
    USAGE = 2
    REFUSED = 3
    HOLES = 4
    EXISTS = 5
    RESOURCES = 6
    SECURITY = 7
    INTERRUPTED = 130


class OmnisatError(Exception):
    """Root of everything omnisat raises on purpose."""

    exit_code: Exit = Exit.INTERNAL


class JobError(OmnisatError):
    """The request itself is wrong: an option, a value, a combination."""

    exit_code = Exit.USAGE


class SourceError(OmnisatError):
    """An input is unreadable, ambiguous or contradicts itself."""

    exit_code = Exit.REFUSED


class AlignmentError(SourceError):
    """Inputs, area and grid do not meet: no CRS, no overlap, wrong units."""


class CheckpointError(OmnisatError):
    """A model pack is damaged, mismatched or not what its card says."""

    exit_code = Exit.REFUSED


class OutputExistsError(OmnisatError):
    """The output is there already, or another process is writing it."""

    exit_code = Exit.EXISTS


class ResumeError(OutputExistsError):
    """A staged run exists but was made from other inputs or parameters."""


class BlockError(OmnisatError):
    """One block could not be processed."""


class ResourceError(OmnisatError):
    """Out of disk, memory or GPU memory after every retry."""

    exit_code = Exit.RESOURCES


class SecurityError(OmnisatError):
    """A file asks for something that data files may not ask for."""

    exit_code = Exit.SECURITY
