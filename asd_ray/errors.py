"""The one exception that a user is meant to read."""

from __future__ import annotations


class AsdRayError(Exception):
    """Something that the user can put right.

    The message is one sentence or a few: which file, key or clip; what was found; what was expected; what to do.
    The command line prints it without a traceback (``--debug`` shows one) and exits with ``exit_code``.
    """

    exit_code = 1


class StorageError(AsdRayError):
    """Storage that is full or fails. It is nobody's result: what was under way runs again when the storage works."""


class ConfigError(AsdRayError):
    """A study file, a ``--set`` or an argument that does not validate: the command line exits with 2."""

    exit_code = 2
