"""Errors that a user can put right: one sentence each, without a traceback on the command line."""

from __future__ import annotations


class AsdRayError(Exception):
    """Something that the user can put right.

    The message is one sentence or a few: which file, key or clip; what was found; what was expected; what to do.
    The command line prints it without a traceback (``--debug`` shows one) and exits with ``exit_code``.
    """

    exit_code = 1


class StorageError(AsdRayError):
    """Storage that is full or fails. No trial is to blame: what was under way runs again when the storage works."""


class ConfigError(AsdRayError):
    """A study file, an option or an argument that does not validate. The command line exits with 2."""

    exit_code = 2


class Interrupted(AsdRayError):
    """The user stopped a command with Ctrl-C, or its job was stopped. The command line exits with 130."""

    exit_code = 130
