"""The error tree: what deadrelu raises on purpose, and nothing else.

DeadReluError
├── InputError           a mistake that the caller can mend (the CLI exits with status 2)
│   ├── DataError        the data: empty, of the wrong shape, refused by the model, unreadable
│   ├── ModelError       the model: cannot be built, has no activation, has uninitialised parameters
│   └── CheckpointError  the file: missing, damaged, or not safe to read
├── RegistryError        a name that a registry holds already, or does not know
└── TrainingStopped      `Monitor(stop_when=...)` ended the training

A message says what happened, what was expected, and what to do, in one line.
"""

from __future__ import annotations


class DeadReluError(Exception):
    """Root of every error that deadrelu raises on purpose."""


class InputError(DeadReluError):
    """A mistake in what was handed in; the message says how to mend it."""


class DataError(InputError):
    """The data cannot be used: empty, of the wrong shape, refused by the model, or unreadable."""


class ModelError(InputError):
    """The model cannot be used: it cannot be built, has no activation, or is not initialised."""


class CheckpointError(InputError):
    """A checkpoint is missing, damaged, does not fit the model, or is not safe to read."""


class RegistryError(DeadReluError):
    """A registry was asked to hold a name twice, or for a name that it does not hold."""


class TrainingStopped(DeadReluError):  # noqa: N818 - nothing went wrong
    """The condition of `Monitor(stop_when=...)` came true; the message says which."""


class DeadReluWarning(UserWarning):
    """Monitor cannot see what it should, or has detached itself; the message says what to do."""


def refused(error: Exception, message: str) -> DataError:
    """Return a DataError for what `error` said, which an `except` clause for the type of `error` catches as well."""
    try:
        both: type[DataError] = type("DataError", (DataError, type(error)), {"__module__": __name__})
        return both(message)
    except TypeError:  # a base whose instances cannot be made from a message alone
        return DataError(message)
