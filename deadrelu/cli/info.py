"""`deadrelu info`: versions, devices, kernels in use, what is installed."""

from __future__ import annotations

import platform
from importlib import metadata

import typer

from .. import __version__

_NEEDED = ("numpy", "rich", "typer", "tensorboard")
_OPTIONAL = {
    "scikit-learn": "deadrelu demo; pip install 'deadrelu[demo]'",
    "pillow": "--data FOLDER of images; pip install 'deadrelu[images]'",
    "transformers": "the model of a Hugging Face folder; pip install 'deadrelu[transformers]'",
}


def info() -> None:
    """Show versions, devices, kernels in use, and what is installed."""
    lines = {
        "deadrelu": __version__,
        "python": f"{platform.python_version()} on {platform.platform()}",
        "torch": _torch(),
        "devices": _devices(),
        "kernels": _kernels("described"),
        "kernels, cuda": _kernels("described_cuda"),
    }
    lines.update({name: _version(name) or "not installed, and needed: pip install deadrelu" for name in _NEEDED})
    lines.update({name: _version(name) or f"not installed; for {use}" for name, use in _OPTIONAL.items()})
    width = max(map(len, lines)) + 2
    for name, value in lines.items():
        typer.echo(f"{name:<{width}}{value}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _torch() -> str:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library of torch that does not load
        return f"cannot be imported ({error}); pip install torch"
    return f"{torch.__version__}, {torch.get_num_threads()} threads"


def _devices() -> str:
    try:
        import torch
    except (ImportError, OSError):
        return "unknown without torch"
    names = ["cpu"]
    names += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return ", ".join(names)


def _kernels(described: str) -> str:
    try:
        from .. import kernels
    except (ImportError, OSError):
        return "unknown without torch"
    line: str = getattr(kernels, described)()
    return line
