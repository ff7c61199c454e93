"""Which kernels compute: forced or found, built once, in the background, and never trusted blindly."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from compiler import compiled, linux

from deadrelu import kernels
from deadrelu.errors import InputError
from deadrelu.kernels import Plan, Sums
from deadrelu.kernels.choice import LARGE, Choice
from deadrelu.kinds import KINDS


@pytest.fixture(autouse=True)
def _unforced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEADRELU_KERNELS", raising=False)


# -- forced -----------------------------------------------------------------------------------------------------------


def test_reference_is_forced(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEADRELU_KERNELS", "reference")
    choice = Choice()
    assert choice.ready(1 << 30) is None
    assert choice.described() == "reference: DEADRELU_KERNELS=reference"
    assert not cache.exists()


@compiled
def test_native_is_forced(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for the smallest tensor."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(built))
    monkeypatch.setenv("DEADRELU_KERNELS", "native")
    choice = Choice()
    assert choice.ready(1) is not None
    assert choice.described().startswith("native")


@pytest.mark.parametrize("ask", [lambda c: c.ready(1), lambda c: c.ready(LARGE), Choice.described])
def test_an_unknown_choice(ask: object, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEADRELU_KERNELS", "fastest")
    with pytest.raises(
        InputError, match=r"^DEADRELU_KERNELS='fastest' is no choice.*auto, reference, native, inductor$"
    ):
        ask(Choice())  # type: ignore[operator]


@linux
def test_native_without_a_compiler(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call says so, in one line."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DEADRELU_KERNELS", "native")
    choice = Choice()
    for _ in range(2):
        with pytest.raises(InputError, match="no C compiler was found") as raised:
            choice.ready(1)
        assert "\n" not in str(raised.value)


# -- around ----------------------------------------------------------------------------------------------------------


@compiled
def test_from_a_transform_or_another_mode(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first large tensor may come anywhere; what is checked then must not depend on it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(built))
    monkeypatch.setenv("DEADRELU_KERNELS", "native")
    monkeypatch.delenv("CC", raising=False)
    with torch.inference_mode(), torch.device("meta"), torch.autocast("cpu", dtype=torch.bfloat16):
        assert Choice().ready(LARGE) is not None
    torch.set_default_dtype(torch.float64)
    try:
        assert Choice().ready(LARGE) is not None
    finally:
        torch.set_default_dtype(torch.float32)


@compiled
def test_no_random_number_is_drawn(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(built))
    monkeypatch.setenv("DEADRELU_KERNELS", "native")
    monkeypatch.delenv("CC", raising=False)
    before = torch.get_rng_state()
    assert Choice().ready(LARGE) is not None
    assert torch.equal(torch.get_rng_state(), before)


# -- what a user sees -------------------------------------------------------------------------------------------------


def info(**environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deadrelu", "info"]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


@compiled
def test_info_says_which_kernels_compute(built: Path, tmp_path: Path) -> None:
    given = {"DEADRELU_KERNELS": "auto", "CC": ""}
    for environment, said in (
        ({"XDG_CACHE_HOME": str(built)}, "native, compiled for this processor"),
        ({"XDG_CACHE_HOME": str(tmp_path)}, "reference, until "),
        ({"DEADRELU_KERNELS": "reference"}, "reference: DEADRELU_KERNELS=reference"),
    ):
        done = info(**{**given, **environment})
        lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
        assert lines["kernels"].startswith(said), environment
        assert (done.returncode, done.stderr) == (0, "")


def test_info_of_an_unknown_choice() -> None:
    done = info(DEADRELU_KERNELS="fastest")
    assert done.returncode == 2
    assert "DEADRELU_KERNELS='fastest' is no choice of kernels" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@compiled
def test_both_kernels_make_the_same_report(built: Path) -> None:
    """Every number of an audit but sums, which agree to far below a millionth."""
    code = """
        import json, sys, torch, deadrelu
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(16, 8, 3, 2), torch.nn.GELU(),
            torch.nn.Flatten(), torch.nn.Linear(1800, 100), torch.nn.ReLU6(), torch.nn.Linear(100, 4),
        )
        loss = lambda output, batch: output.square().mean()
        report = deadrelu.audit(model, torch.randn(70, 3, 32, 32), batch_size=30, loss=loss)
        json.dump(report.to_dict(), sys.stdout)
    """
    reports = []
    for chosen in ("reference", "native"):
        environment = {**os.environ, "DEADRELU_KERNELS": chosen, "XDG_CACHE_HOME": str(built), "CC": ""}
        command = [sys.executable, "-c", textwrap.dedent(code)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        reports.append(json.loads(done.stdout))
    assert len(reports[0]["sites"]) == 3
    for one, other in zip(reports[0]["sites"], reports[1]["sites"], strict=True):
        for name, value in one.items():
            if name in ("dormant_score", "grad_flow"):
                np.testing.assert_allclose(other[name], value, rtol=1e-6)
            else:
                assert other[name] == value, name


def test_a_compiler_of_models_traces_nothing_but_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a model is compiled, no choice is made: locks and libraries would break its graph."""

    def asked(self: Choice, elements: int) -> None:
        raise AssertionError("the choice was asked")

    monkeypatch.setattr(Choice, "ready", asked)
    z, made = torch.tensor([[1.0, -2.0], [3.0, -4.0]]), Plan(None, (1,), (0,), (), (2, 2))
    with pytest.raises(AssertionError, match="was asked"):
        kernels.maximum(z, made)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert kernels.maximum(z, made).tolist() == [3.0, -2.0]
    sums = Sums(2, torch.device("cpu"))
    assert kernels.engaged(z, KINDS["relu"], made, sums).fired.tolist() == [[True, False], [True, False]]


@compiled
def test_a_copy_of_sums_is_its_own(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is added to a copy is not added to the original, nor written where that has been."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(built))
    monkeypatch.setenv("DEADRELU_KERNELS", "native")
    monkeypatch.delenv("CC", raising=False)
    native = Choice().ready(1)
    assert native is not None
    z, made = torch.ones(9, 2), Plan(None, (1,), (0,), (), (9, 2))
    one = Sums(2, torch.device("cpu"))
    other = copy.deepcopy(one)
    assert native.engaged(z, KINDS["relu"], made, other) is not None
    assert (one.count.tolist(), other.count.tolist()) == ([0.0, 0.0], [9.0, 9.0])
    again = copy.deepcopy(made)  # with what was worked out for it
    assert native.engaged(z, KINDS["relu"], again, one) is not None
    assert one.count.tolist() == [9.0, 9.0]
