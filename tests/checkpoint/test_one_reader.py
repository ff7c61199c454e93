"""There is one reader of checkpoints, and nothing in the package can unpickle anything."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import deadrelu

PACKAGE = Path(deadrelu.__file__).parent
FORBIDDEN = {
    ("torch", "load"),
    ("torch.jit", "load"),
    ("torch.export", "load"),
    ("torch.hub", "load"),
    ("torch.package", "PackageImporter"),
    ("torch.distributed.checkpoint", "load"),
    ("np", "load"),
    ("numpy", "load"),
    ("safetensors", "safe_open"),
}
UNPICKLERS = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "shelve",
    "marshal",
    "joblib",
    "torch.serialization",
}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_unpickles(path: Path) -> None:
    """`np.load` stays where it says allow_pickle=False: data files."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not {alias.name for alias in node.names} & UNPICKLERS
        elif isinstance(node, ast.ImportFrom):
            assert node.module not in UNPICKLERS
            assert not {(node.module, alias.name) for alias in node.names} & FORBIDDEN
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if tuple(called.rpartition(".")[::2]) in FORBIDDEN:
                assert called == "np.load"
                flags = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert flags.get("allow_pickle") == "False"
