"""Reader: recorded runs, read back from the folders that event files are in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputError
from .assembly import assemble
from .files import Files, event_files
from .names import OWN_FOLDER
from .run import Run


class Recording:
    """One recorded run in a folder, which may still grow: `update` takes in what is new.

    Args:
        path: the folder of its event files, or one of them.
        name: what the run is called.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self._files = Files(path)
        self._outer = Files(path.parent) if _is_inner(path) else None
        self._held: Run | None = None

    def update(self) -> bool:
        """Take in what was written since; return whether there was anything.

        Raises:
            InputError: a file cannot be read.
        """
        grown = self._files.update()
        if self._outer is not None:
            grown |= self._outer.update()
        if grown:
            self._held = None
        return grown

    @property
    def is_record(self) -> bool:
        """There is a record in what was read so far."""
        return self._files.is_record

    def damage(self) -> str | None:
        """Return in words what cannot be read of it, None if there is no such thing."""
        return self._files.damage()

    def run(self) -> Run:
        """Return the run as far as it was read.

        Raises:
            InputError: there is no record, or it is damaged.
        """
        if not self.is_record:
            raise InputError(_missing(self.path, self._files.damage()))
        if self._held is None:
            outer = None if self._outer is None else self._outer.loss()
            self._held = assemble(self.name, self._files, str(self.path), loss=outer)
        return self._held


class Following:
    """Every recording in a folder, new ones as they appear.

    Args:
        path: the folder, or one event file.
        awaited: the folder need not be there yet.

    Raises:
        InputError: there is nothing of that name.
    """

    def __init__(self, path: str | os.PathLike[str], *, awaited: bool = False) -> None:
        self.path = Path(path).expanduser()
        if not awaited and not self.path.exists():
            raise InputError(
                f"{self.path}: no such file or folder; give the log_dir of a run, or the folder of several"
            )
        self._found: dict[Path, Recording] = {}

    def update(self) -> bool:
        """Take in what was written since; return whether there was anything.

        Raises:
            InputError: something cannot be read.
        """
        for folder in _folders(self.path):
            if folder not in self._found:
                self._found[folder] = Recording(folder, _name(self.path, folder))
        grown = [recording.update() for recording in self._found.values()]
        return any(grown)

    def runs(self) -> list[Run]:
        """Return the runs so far, by name.

        Raises:
            InputError: a record is damaged.
        """
        return [recording.run() for recording in self._found.values() if recording.is_record]

    def finished(self) -> bool:
        """Return whether there are runs, and all are finished."""
        found = self.runs()
        return bool(found) and all(run.finished for run in found)

    def missing(self) -> str:
        """Return the words for a folder without a record."""
        return _missing(self.path, next(filter(None, (found.damage() for found in self._found.values())), None))


def read_run(path: str | os.PathLike[str]) -> Run:
    """Return the run that was recorded in a folder (or in one event file); of several, none.

    Raises:
        InputError: there is no record, there are several, or it cannot be read.
    """
    found = runs(path)
    if len(found) > 1:
        names = ", ".join(run.name for run in found[:5])
        raise InputError(f"{os.fspath(path)} holds {len(found)} runs ({names}); name the folder of one of them")
    return found[0]


def runs(path: str | os.PathLike[str]) -> list[Run]:
    """Return every run that was recorded in a folder or in a folder inside of it, by name.

    Raises:
        InputError: there is none, or one cannot be read.
    """
    following = Following(path)
    following.update()
    found = following.runs()
    if not found:
        raise InputError(following.missing())
    return found


def _folders(root: Path) -> Iterator[Path]:
    if not root.is_dir():
        if root.exists():
            yield root
        return
    for folder, inner, _ in os.walk(root):
        inner.sort()
        if event_files(Path(folder)):
            yield Path(folder)


def _name(root: Path, folder: Path) -> str:
    inside = folder.relative_to(root).as_posix()
    return Path(os.path.realpath(root)).name or "run" if inside == "." else inside


def _is_inner(path: Path) -> bool:
    """Return whether a record went into this folder because the one around it holds somebody else's event files."""
    return path.is_dir() and path.name == OWN_FOLDER and path.parent != path


def _missing(path: Path, damage: str | None) -> str:
    if damage is not None:
        return f"{path}: no record of a run can be read in it: {damage}; train again, or use a copy"
    return (
        f"{path}: no record of a run in it; deadrelu.Monitor(model, optimizer, log_dir=...) writes one, "
        "at the end of its first window"
    )
