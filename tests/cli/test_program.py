"""The program as a process: start, help, pipes, interrupts, encodings."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import deadrelu

from .shop import deadrelu as run_here

ROOT = Path(deadrelu.__file__).resolve().parent.parent
TORCHLESS = """
import sys
from deadrelu.cli import main
sys.argv[0] = "deadrelu"
try:
    main()
finally:
    assert not {"torch", "numpy"} & set(sys.modules), "slow to start"
"""


def environment(**extra: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DEADRELU")}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1", **extra}


def process(*words: str, **extra: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deadrelu", *words]
    return subprocess.run(command, env=environment(**extra), capture_output=True, encoding="utf-8", check=False)


@pytest.mark.parametrize(
    ("words", "status", "expected"),
    [
        (["--version"], 0, deadrelu.__version__),
        (["--help"], 0, "audit"),
        ([], 0, "Start with deadrelu demo"),
        (["audit", "--help"], 0, "--fail-above"),
        (["audit", "-h"], 0, "Exit status"),
        (["demo", "--help"], 0, "--out"),
        (["adit"], 2, "adit"),
        (["audit", "x:y", "--data", "x.npy", "--fail-above", "some"], 2, "5%"),
    ],
)
def test_help_and_usage_errors_do_not_wait_for_torch(words: list[str], status: int, expected: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", TORCHLESS, *words], env=environment(), capture_output=True, encoding="utf-8", check=False
    )
    assert run.returncode == status, run.stderr
    assert expected in (run.stderr if status else run.stdout)
    assert (run.stdout if status else run.stderr) == ""


@pytest.mark.usefixtures("workplace")
def test_audit_from_the_current_folder() -> None:
    """Modules of the current folder are importable, stderr in a pipe holds no progress bar, stdout JSON alone."""
    run = process("audit", "net.pt", "--model", "shop:blank", "--data", "x.npy", "--json", "-", "--exhaustive")
    assert (run.returncode, run.stderr) == (0, "")
    assert json.loads(run.stdout)["dead"] == 2
    run = process("audit", "shop:net", "--data", "x.npy", "--fail-above", "1%")
    assert run.returncode == 1
    assert "2 of 8 units" in run.stdout
    assert run.stderr.count("\n") == 1


@pytest.mark.usefixtures("workplace")
def test_a_mistake_is_one_line() -> None:
    run = process("audit", "shop:net", "--data", "gone.npy")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == "deadrelu: error: --data gone.npy: no such file; check the path\n"


@pytest.mark.skipif(os.name != "posix", reason="signals and pipes of POSIX")
@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("words", [["--json", "-"], ["--all"]])
def test_a_reader_that_goes_away(words: list[str]) -> None:
    """`deadrelu audit ... | head -0` ends quietly."""
    command = [sys.executable, "-m", "deadrelu", "audit", "shop:net", "--data", "x.npy", *words]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdout.close()
        assert run.stderr.read() == b""
    assert run.returncode == 141


@pytest.mark.skipif(os.name != "posix", reason="signals and pipes of POSIX")
def test_ctrl_c_in_the_middle_of_a_scan(workplace: Path) -> None:
    """The signal comes while batches are read."""
    (workplace / "slow.py").write_text(
        "import sys, time, shop\n"
        "def batches():\n"
        "    yield shop.rows()\n"
        "    print('scanning', flush=True)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-m", "deadrelu", "audit", "shop:net", "--data", "slow:batches"]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stderr is not None
        assert run.stderr.readline() == b"scanning\n"  # what the user's code prints goes to stderr
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=30)
    assert (run.returncode, out, err) == (130, b"", b"deadrelu: interrupted\n")


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_unicode(encoding: str) -> None:
    run = process("audit", "shop:net", "--data", "x.npy", PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert run.returncode == 0, run.stderr
    assert "2 of 8 units" in run.stdout


def test_info() -> None:
    result = run_here("info")
    assert result.exit_code == 0
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert lines["deadrelu"] == deadrelu.__version__
    assert lines["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert lines["devices"].startswith("cpu")
    assert {"torch", "numpy", "rich", "typer", "tensorboard", "scikit-learn", "transformers", "pillow"} <= set(lines)


def test_info_where_something_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not installed is said, with what it is for and how to get it."""
    from importlib import metadata

    real = metadata.version

    def version(name: str) -> Any:
        if name in ("pillow", "scikit-learn"):
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setitem(sys.modules, "torch", None)
    out = run_here("info").stdout
    assert "pip install 'deadrelu[images]'" in out
    assert "pip install 'deadrelu[demo]'" in out
    assert "cannot be imported" in out
    assert "unknown without torch" in out
