"""Guard: the few lines of C++ without which torch refuses to compute on cuda:0, compiled and loaded once."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

SOURCE = Path(__file__).with_name("guard.cpp")
STANDARDS = ("c++20", "c++17")
_loaded: list[ctypes.CDLL] = []


@functools.cache
def load() -> str:
    """Load the guard; returns why it cannot be, empty if it is loaded.

    To be called before this process runs its first backward pass: autograd counts devices there, and never again.
    """
    if torch.version.cuda is not None or torch.version.hip is not None:
        return "this build of torch has kernels for GPUs, which cannot be replaced"
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return "there is no C++ compiler"
    text = SOURCE.read_bytes() + torch.__version__.encode()
    path = Path(tempfile.gettempdir()) / f"deadrelu-guard-{os.getuid()}-{hashlib.sha256(text).hexdigest()[:16]}.so"
    if not path.exists():
        said = _compile(compiler, path)
        if said:
            return said
    _loaded.append(ctypes.CDLL(str(path)))
    return ""


def present(now: bool) -> None:
    """Tell torch that the device is there, or no longer."""
    _loaded[0].deadrelu_present(now)


def _compile(compiler: str, path: Path) -> str:
    home = Path(torch.__file__).parent
    options = ("-shared", "-fPIC", f"-I{home / 'include'}", str(SOURCE), f"-L{home / 'lib'}", "-lc10", "-ltorch_cpu")
    said = ""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "guard.so"
        for standard in STANDARDS:
            done = subprocess.run([compiler, f"-std={standard}", *options, "-o", str(made)], capture_output=True)
            if done.returncode == 0:
                shutil.copy(made, path.with_suffix(f".{os.getpid()}"))
                path.with_suffix(f".{os.getpid()}").replace(path)  # at once: several processes may be at it
                return ""
            said = done.stderr.decode(errors="replace")
    return f"{compiler} failed: {said[-300:]}"
