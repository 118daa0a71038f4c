"""Why the command refuses to start, in sentences for the operator."""

from __future__ import annotations


class CommandError(Exception):
    """Root of this package's failures that end the command with a message instead of a traceback."""


class FlagError(CommandError):
    """The command line cannot be read: an unknown flag, a missing or malformed value."""


class ConfigurationError(CommandError):
    """The command line can be read, but the gateway must not or cannot start with it."""
