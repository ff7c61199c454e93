"""Refusals: why a file is not read, in one line that names it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import CheckpointError

STATE_DICT = "torch.save(model.state_dict(), path)"


class Unreadable(Exception):  # noqa: N818 - a reason on its way to becoming a CheckpointError
    """Why the bytes at hand are not read; `refusing` adds whose they are."""


class Damaged(Unreadable):
    """The bytes contradict their format; what they say does not matter to the user, so no message is kept."""


def on_one_line(text: str) -> str:
    """Return `text`, which may name what strangers wrote, without line feeds and other control characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


@contextmanager
def refusing(path: Path, saved_by: str = STATE_DICT) -> Iterator[None]:
    """Turn whatever hostile or damaged bytes make of a reader into a CheckpointError about `path`.

    `saved_by` is how the file should have been written.
    """
    damaged = f"{path}: it is damaged, cut short, or no file of {saved_by}; copy or save it again"
    try:
        yield
    except CheckpointError:
        raise
    except Damaged:
        raise CheckpointError(damaged) from None
    except Unreadable as reason:
        raise CheckpointError(f"{path}: {on_one_line(str(reason))}") from None
    except PermissionError:
        raise CheckpointError(f"{path}: no permission to read it") from None
    except MemoryError:
        raise CheckpointError(f"{path}: it asks for more memory than there is; nothing of it is kept") from None
    except OSError as error:
        raise CheckpointError(f"{path}: it cannot be read ({error.strerror or type(error).__name__})") from None
    except Exception as error:  # damaged bytes make parsers raise nearly anything: struct.error, RecursionError, ...
        raise CheckpointError(damaged) from error
