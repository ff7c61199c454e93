"""Check everything: `python -m tests` runs lint, format, types and tests; what follows it is handed to pytest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STEPS = {
    "lint": ["ruff", "check"],
    "format": ["ruff", "format", "--check"],
    "types": ["mypy"],
    "tests": ["pytest", "-n", "auto"],  # the last step: its closing line is the last of a run without a failure
}


def main(pytest_args: list[str]) -> int:
    """Run every step, also after one that failed, and return 1 if any did."""
    failed = []
    for name, command in STEPS.items():
        print(f"== {name}: {' '.join(command)}", flush=True)
        extra = pytest_args if name == "tests" else []
        if subprocess.run([sys.executable, "-m", *command, *extra], cwd=ROOT).returncode != 0:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
