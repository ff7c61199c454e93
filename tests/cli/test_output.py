"""The file of `--json`: whole or not at all, with the permissions that it should have."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from deadrelu.cli.output import TextFile
from deadrelu.errors import InputError

posix = pytest.mark.skipif(os.name != "posix", reason="permissions and links of POSIX")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_nothing_is_there_before_the_text_is(tmp_path: Path) -> None:
    file = TextFile(str(tmp_path / "report.json"), "--json")
    assert list(tmp_path.iterdir()) == []
    file.write("größer\n")
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]
    assert (tmp_path / "report.json").read_text(encoding="utf-8") == "größer\n"


@posix
def test_permissions(tmp_path: Path) -> None:
    """A new file follows the umask, an old one keeps its own; temporary files are made with 0600."""
    new, old = tmp_path / "new.json", tmp_path / "old.json"
    old.write_text("old")
    old.chmod(0o640)
    mask = os.umask(0o027)
    try:
        for path in (new, old):
            TextFile(str(path), "--json").write("text")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(mask)
    assert (mode(new), mode(old)) == (0o640, 0o640)
    old.chmod(0o604)
    TextFile(str(old), "--json").write("text")
    assert mode(old) == 0o604


@posix
def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    TextFile(str(tmp_path / "link.json"), "--json").write("text")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_text() == "text"


@posix
def test_a_device_is_written_to_and_not_replaced() -> None:
    TextFile(os.devnull, "--json").write("text")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_a_failure_leaves_the_old_text_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    file = TextFile(str(path), "--json")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(InputError, match=r"--json .*report.json: cannot be written \(No space left on device\)"):
            file.write("new")
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]
    assert path.read_text() == "old"


def test_a_folder_that_goes_away(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    file = TextFile(str(folder / "report.json"), "--json")
    folder.rmdir()
    with pytest.raises(InputError, match="No such file"):
        file.write("text")
