"""Library: where the compiled kernels lie, whether they can be trusted, and how they are made.

They are compiled once by this machine's C compiler and kept in the user's cache folder, under a name that says what
they were made from and for. A file that somebody else could have written is not loaded.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import stat
import sys
import time
from pathlib import Path

_HERE = Path(__file__).parent
_SOURCES = ("native.c", "native_loops.h", "build.py")
_FUNCTIONS = ("deadrelu_add", "deadrelu_reach", "deadrelu_words")
_DIGEST = hashlib.sha256().digest_size
_FORGIVEN = 86400
"""Seconds after which a compiler that failed is tried again."""
_CPU = ("flags", "features", "model name", "cpu implementer", "cpu part", "cpu variant", "isa", "mmu")


class UnusableError(Exception):
    """The native kernels cannot be used; the message says why."""


def compiler() -> list[str]:
    """Return the command of the C compiler.

    Raises:
        UnusableError: there is none, or compiled kernels are not for this system.
    """
    if not sys.platform.startswith("linux") or sys.byteorder != "little":
        raise UnusableError(f"native kernels are made on Linux only; this is {sys.platform}")
    if not sys.executable:
        raise UnusableError("Python does not know its own program, which would run the compiler")
    given = os.environ.get("CC", "")
    try:
        words = shlex.split(given)
    except ValueError:
        words = []
    candidates = ([words] if words else []) + [[name] for name in ("cc", "gcc", "clang")]
    for command in candidates:
        found = shutil.which(command[0])
        if found is not None:
            return [found, *command[1:]]
    raise UnusableError("no C compiler was found ($CC, cc, gcc, clang)")


def folder() -> Path:
    """Return the folder of compiled kernels, which is made if need be.

    Raises:
        UnusableError: it cannot be made, or others may write there.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    try:
        root = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
        path = root / "deadrelu"
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner(path)
    except (OSError, RuntimeError) as error:  # RuntimeError: no home
        raise UnusableError(f"there is no cache folder for compiled kernels ({error})") from None
    return path


def target(command: list[str]) -> Path:
    """Return where the library made by this compiler, for this processor, is or will be."""
    key = hashlib.sha256()
    for name in _SOURCES:
        key.update((_HERE / name).read_bytes())
    # An updated compiler is another file; asking it for its version would take a process.
    known = os.stat(os.path.realpath(command[0]))
    key.update(repr((command, os.path.realpath(command[0]), known.st_size, known.st_mtime_ns)).encode())
    key.update(repr((platform.machine(), platform.libc_ver(), sys.maxsize, _processor())).encode())
    return folder() / f"native-{key.hexdigest()[:24]}.so"


def failure(path: Path) -> str | None:
    """Return why compiling failed lately; None if it did not."""
    note = path.with_suffix(".failed")
    try:
        _check_owner(note)
        if time.time() - note.stat().st_mtime < _FORGIVEN:
            return note.read_text(encoding="utf-8", errors="replace")
    except (OSError, UnusableError):
        pass
    return None


def start(path: Path, command: list[str]) -> int:
    """Start to compile the library at `path`; returns the process.

    Raises:
        UnusableError: the process cannot be started.
    """
    words = [sys.executable, "-I", str(_HERE / "build.py"), str(path), str(_HERE / "native.c"), *command]
    quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    try:
        path.with_suffix(".failed").unlink(missing_ok=True)
        return os.posix_spawn(sys.executable, words, os.environ, file_actions=quiet)
    except OSError as error:
        raise UnusableError(f"the compiler cannot be started ({error})") from None


def ended(process: int, *, wait: bool = False) -> bool:
    """True if a process that was started has ended."""
    try:
        return os.waitpid(process, 0 if wait else os.WNOHANG)[0] == process
    except ChildProcessError:  # somebody else has asked how it ended
        return True


def load(path: Path) -> ctypes.CDLL:
    """Return the library at `path`.

    Raises:
        FileNotFoundError: it is not there.
        UnusableError: it is damaged, others may have written it, or it does not load.
    """
    content = path.read_bytes()
    _check_owner(path)
    if hashlib.sha256(content[:-_DIGEST]).digest() != content[-_DIGEST:]:
        raise UnusableError(f"{path} is damaged; delete it")
    try:
        library = ctypes.CDLL(str(path))
        for name in _FUNCTIONS:  # now, not in the middle of a training
            getattr(library, name)
    except (OSError, AttributeError) as error:
        raise UnusableError(f"{path} cannot be loaded ({error})") from None
    return library


def _check_owner(path: Path) -> None:
    known = path.lstat()
    if stat.S_ISLNK(known.st_mode) or known.st_uid != os.getuid() or known.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UnusableError(f"{path} belongs to somebody else, or others may write to it")


def _processor() -> tuple[str, ...]:
    """Return what tells one processor from another: a home may be shared by machines of several kinds."""
    lines = []
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if not line.strip():
                    break
                if line.split(":")[0].strip().lower() in _CPU:
                    lines.append(line.strip())
    except OSError:
        pass
    return tuple(lines)
