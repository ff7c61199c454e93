"""Native kernels are built once, in the background, and never trusted blindly; what fails leaves the reference."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from compiler import compiled, linux, program, settled

from deadrelu.errors import InputError
from deadrelu.kernels import library
from deadrelu.kernels.choice import LARGE, Choice


@pytest.fixture(autouse=True)
def _unforced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEADRELU_KERNELS", raising=False)


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
