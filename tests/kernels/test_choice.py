"""Which kernels compute: forced or found, built once, in the background, and never trusted blindly."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from deadrelu import kernels
from deadrelu.errors import InputError
from deadrelu.kernels import Plan, Sums, library
from deadrelu.kernels.choice import LARGE, Choice
from deadrelu.kinds import KINDS

try:
    library.compiler()
    MISSING = ""
except library.UnusableError as error:
    MISSING = str(error)
compiled = pytest.mark.skipif(bool(MISSING), reason=MISSING)
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="native kernels are made on Linux only")


@pytest.fixture(autouse=True)
def _unforced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEADRELU_KERNELS", raising=False)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder; nothing is forced."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DEADRELU_KERNELS", raising=False)
    monkeypatch.delenv("CC", raising=False)
    return tmp_path / "cache"


def program(path: Path, script: str) -> str:
    """Write a shell script and return its name."""
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def settled(choice: Choice) -> Choice:
    """Ask for a large tensor's kernels until there is an answer."""
    end = time.monotonic() + 120
    while choice.native is None and not choice.reason and time.monotonic() < end:
        choice.ready(LARGE)
        time.sleep(0.02)
    return choice


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


# -- in the background ------------------------------------------------------------------------------------------------


@compiled
def test_nothing_is_built_for_small_tensors(cache: Path) -> None:
    choice = Choice()
    assert choice.ready(LARGE - 1) is None
    assert not choice.reason
    assert not cache.exists()


@compiled
def test_nothing_waits_for_the_compiler(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that takes its time: the reference until it is through, then its word."""
    gate = tmp_path / "gate"
    monkeypatch.setenv("CC", program(tmp_path / "slow", f'while [ ! -e "{gate}" ]; do sleep 0.05; done; exit 3'))
    choice = Choice()
    for _ in range(20):
        assert choice.ready(LARGE) is None
        assert not choice.reason
    gate.touch()
    settled(choice)
    assert "failed with status 3" in choice.reason
    assert choice.described() == f"reference: {choice.reason}"


@compiled
def test_a_large_tensor_builds_them(cache: Path) -> None:
    """In the background; the next process finds them, and its first large tensor has them at once."""
    choice = Choice()
    assert "until" in choice.described()
    assert choice.ready(LARGE) is None
    assert settled(choice).native is not None
    assert choice.described().startswith("native")
    assert [path.suffix for path in (cache / "deadrelu").iterdir()] == [".so"]
    assert stat.S_IMODE((cache / "deadrelu").stat().st_mode) == 0o700
    again = Choice()
    assert again.ready(LARGE) is not None


@compiled
def test_two_processes_compile_at_once(cache: Path) -> None:
    """Both get kernels that work, and one library is left."""
    code = """
        import torch
        from deadrelu.kernels import Plan, Sums, engaged
        from deadrelu.kinds import KINDS
        sums = Sums(3, torch.device("cpu"))
        engaged(torch.tensor([[1.0, -1.0, 0.0]] * 9), KINDS["relu"], Plan(None, (1,), (0,), (), (9, 3)), sums)
        print(sums.count.tolist())
    """
    environment = {**os.environ, "DEADRELU_KERNELS": "native"}
    running = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, env=environment)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=300)[0].strip() for process in running] == [b"[9.0, 0.0, 0.0]"] * 2
    assert len(list((cache / "deadrelu").iterdir())) == 1


@compiled
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_does_not_wait_for_its_parent(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler that the parent started is none of its children: these ask their own."""
    gate = tmp_path / "gate"
    monkeypatch.setenv("CC", program(tmp_path / "slow", f'while [ ! -e "{gate}" ]; do sleep 0.05; done; exit 3'))
    choice = Choice()
    assert choice.ready(LARGE) is None
    pid = os.fork()
    if pid == 0:
        waits = choice.ready(LARGE) is None and not choice.reason
        os._exit(0 if waits else 1)
    assert os.waitpid(pid, 0)[1] == 0
    gate.touch()
    assert "status 3" in settled(choice).reason


# -- what fails leaves the reference ----------------------------------------------------------------------------------


@linux
def test_no_compiler(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    choice = settled(Choice())
    assert choice.reason == "no C compiler was found ($CC, cc, gcc, clang)"
    assert choice.described() == f"reference: {choice.reason}"


def test_another_system(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert "on Linux only; this is win32" in settled(Choice()).reason


BROKEN = {
    "says no": (
        "echo 'native.c:1:1: error: no such thing' >&2; exit 1",
        "status 1: native.c:1:1: error: no such thing",
    ),
    "makes nothing": ("exit 0", "made nothing"),
    "makes rubbish": ('for w; do if [ "$o" = -o ]; then echo rubbish >"$w"; fi; o=$w; done', "cannot be loaded"),
}


@linux
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_compiler(kind: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, said = BROKEN[kind]
    monkeypatch.setenv("CC", program(tmp_path / "broken", script))
    choice = settled(Choice())
    assert choice.native is None
    assert said in choice.reason
    assert said in settled(Choice()).reason  # the next process, too
    monkeypatch.setenv("DEADRELU_KERNELS", "native")
    with pytest.raises(InputError, match="DEADRELU_KERNELS=native, but"):
        Choice().ready(1)


@compiled
def test_a_compiler_that_failed_is_not_asked_again_that_day(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv("CC", program(tmp_path / "broken", f'echo asked >>"{log}"; exit 1'))
    settled(Choice())
    asked = log.read_text().count("asked")
    settled(Choice())
    assert log.read_text().count("asked") == asked
    (note,) = (cache / "deadrelu").glob("*.failed")
    os.utime(note, (1, 1))
    settled(Choice())
    assert log.read_text().count("asked") == 2 * asked


@compiled
def test_a_compiler_without_tuning(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not know -march=native is asked without it."""
    real = library.compiler()[0]
    script = f'for w; do [ "$w" = -march=native ] && exit 1; done; exec "{real}" "$@"'
    monkeypatch.setenv("CC", program(tmp_path / "old", script))
    assert settled(Choice()).native is not None


@compiled
def test_kernels_that_compute_wrongly(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the compiler made of the source: it is compared with the reference before it is used."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("native.c", "native_loops.h", "build.py"):
        text = (Path(library.__file__).parent / name).read_text(encoding="utf-8")
        (source / name).write_text(text.replace("x > low", "x >= low"), encoding="utf-8")
    monkeypatch.setattr(library, "_HERE", source)
    assert "wrongly" in settled(Choice()).reason


@compiled
@pytest.mark.skipif(os.name == "posix" and os.getuid() == 0, reason="the superuser may write anywhere")
def test_a_home_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o500)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert "no cache folder" in settled(Choice()).reason
    tmp_path.chmod(0o700)


@compiled
def test_a_cache_that_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unlike permissions, this stops the superuser, too."""
    (tmp_path / "cache").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DEADRELU_KERNELS", raising=False)
    assert "no cache folder for compiled kernels" in settled(Choice()).reason


@compiled
@pytest.mark.parametrize("damage", ["cut short", "a bit", "empty"])
def test_a_damaged_library(damage: str, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not even opened: a shared library cut short would take the process down."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    path = library.target(library.compiler())
    (whole,) = (built / "deadrelu").glob("*.so")
    content = bytearray(whole.read_bytes())
    if damage == "a bit":
        content[len(content) // 2] ^= 1
    path.write_bytes({"cut short": content[:5000], "a bit": content, "empty": b""}[damage])
    assert "is damaged; delete it" in settled(Choice()).reason


@compiled
@pytest.mark.parametrize("case", ["library", "folder", "link"])
def test_what_others_may_write_is_not_loaded(
    case: str, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    path = library.target(library.compiler())
    (whole,) = (built / "deadrelu").glob("*.so")
    if case == "link":
        path.symlink_to(whole)
    else:
        path.write_bytes(whole.read_bytes())
        (path if case == "library" else path.parent).chmod(0o777)
    assert "others may write to it" in settled(Choice()).reason


@compiled
def test_a_library_of_another_make_is_not_found(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name says what it was made from and for: another processor, another compiler, another source."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(built))
    monkeypatch.delenv("CC", raising=False)
    own = library.target(library.compiler())
    assert own.exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "_processor", lambda: ("another",))
        assert library.target(library.compiler()) != own
    assert library.target([*library.compiler(), "-m32"]) != own
    content = own.read_bytes()
    assert hashlib.sha256(content[:-32]).digest() == content[-32:]


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
