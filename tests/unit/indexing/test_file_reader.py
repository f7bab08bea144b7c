"""A file is read whole, as it was at one moment, or not at all."""

import os
from pathlib import Path

import pytest

from penstock.indexing.encoding import UnreadableText
from penstock.indexing.exclusion import SkipReason
from penstock.indexing.file_reader import FileChanged, read_text
from penstock.kernel.errors import Invalid


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a\r\nb\n", "a\r\nb\n"),
        (b"\xef\xbb\xbfa", "a"),
        ("aé".encode("utf-16"), "aé"),
        (b"\xfe\xff\x00a", "a"),
        ("für".encode("latin-1"), "für"),
        (b"", ""),
    ],
)
def test_bytes_become_text(tmp_path: Path, data: bytes, text: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(data)
    assert read_text(path).text == text


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"words\n" * 2000 + b"\0")
    with pytest.raises(UnreadableText) as raised:
        read_text(tmp_path / "a")
    assert raised.value.reason is SkipReason.BINARY


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="the system has no such device")  # noqa: PTH110
def test_a_device_is_refused() -> None:
    with pytest.raises(Invalid) as raised:
        read_text(Path("/dev/zero"))
    assert raised.value.code == "not_a_file"


def test_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(Invalid) as raised:
        read_text(tmp_path / "fifo")
    assert raised.value.code == "not_a_file"


def test_too_large_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("123456")
    with pytest.raises(Invalid) as raised:
        read_text(tmp_path / "a", 5)
    assert raised.value.code == "too_large"


def test_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "a")


def _changing(path: Path, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fstat, looks = os.fstat, iter(range(100))

    def writing(descriptor: int) -> os.stat_result:
        before = fstat(descriptor)
        # The first look of each reading is followed by another process's write.
        if (look := next(looks)) % 2 == 0 and look < 2 * times:
            path.write_text("x" * (look + 2))
        return before

    monkeypatch.setattr(os, "fstat", writing)


def test_file_that_changed_once_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    _changing(path, 2, monkeypatch)
    assert read_text(path).text == "xxxx"


def test_file_that_keeps_changing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    _changing(path, 3, monkeypatch)
    with pytest.raises(FileChanged) as raised:
        read_text(path)
    assert raised.value.path == path


@pytest.mark.parametrize("replaced", ["tree", "tree/deep", "tree/deep/a.py"])
def test_a_file_is_not_read_where_a_link_has_taken_a_place(tmp_path: Path, replaced: str) -> None:
    for name in ("tree", "secret"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "a.py").write_text(f"{name} = 1\n")
    file = tmp_path / "tree" / "deep" / "a.py"
    assert read_text(file).text == "tree = 1\n"
    (tmp_path / replaced).rename(tmp_path / "before")
    (tmp_path / replaced).symlink_to(tmp_path / replaced.replace("tree", "secret"))
    with pytest.raises(OSError, match="a link has taken"):
        read_text(file)
