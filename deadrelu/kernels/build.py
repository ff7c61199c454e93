"""Build: compiles the native kernels, in a process of its own that nobody waits for.

Run as a script with the target, the source and the words of the compiler's command; needs nothing but Python. A
finished library takes its place in one step, so that a reader finds all of it or nothing, whoever else is compiling.
What went wrong is left beside it in a file that ends in `.failed`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FLAGS = tuple(
    "-std=gnu11 -O2 -ftree-vectorize -fvect-cost-model=dynamic -fopenmp-simd -fno-math-errno -fno-trapping-math "
    "-shared -fPIC -pthread".split()
)
"""No flag may change what comparisons say of NaN, or how a sum is put together; `-fopenmp-simd` brings no OpenMP."""
TUNED = "-march=native"
_PATIENCE = 300
"""Seconds that a compiler is given."""
_STALE = 3600
"""Seconds after which an unfinished file belongs to nobody."""


def main(target: Path, source: Path, compiler: list[str]) -> int:
    """Compile `source` to `target`. Returns the exit status."""
    with contextlib.suppress(OSError):
        os.nice(10)  # the training comes first
    try:
        for old in target.parent.glob("*.part"):
            if time.time() - old.stat().st_mtime > _STALE:
                old.unlink()
        handle, name = tempfile.mkstemp(suffix=".part", dir=target.parent)
        os.close(handle)
    except OSError as error:
        return _failed(target, f"{target.parent} cannot be written ({error.strerror})")
    part = Path(name)
    try:
        said = _compile(part, source, [*compiler, TUNED]) and _compile(part, source, compiler)
        if said:
            return _failed(target, said)
        content = part.read_bytes()
        if not content:
            return _failed(target, f"{compiler[0]} made nothing")
        with part.open("ab") as file:
            file.write(hashlib.sha256(content).digest())
        part.chmod(0o700)
        os.replace(part, target)
        return 0
    except OSError as error:
        return _failed(target, f"{compiler[0]}: {error.strerror or error}")
    finally:
        part.unlink(missing_ok=True)


def _compile(part: Path, source: Path, compiler: list[str]) -> str:
    """Return what went wrong, empty if nothing did."""
    try:
        done = subprocess.run(
            [*compiler, *FLAGS, "-o", str(part), str(source)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{compiler[0]} did not end within {_PATIENCE} s"
    if not done.returncode:
        return ""
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    first = next((line for line in lines if "error" in line), lines[0] if lines else "no message")
    return f"{compiler[0]} failed with status {done.returncode}: {first[:300]}"


def _failed(target: Path, reason: str) -> int:
    with contextlib.suppress(OSError):
        target.with_suffix(".failed").write_text(reason, encoding="utf-8")
    return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
