"""What is no plain file is refused at once, and what is too long is not read whole."""

import os
from pathlib import Path

import pytest

from penstock.kernel.regular_file import read_regular


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def loop(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("lay", [pipe, endless, sparse, loop, Path.mkdir])
def test_what_is_no_small_plain_file_is_refused_at_once(tmp_path, lay):
    lay(tmp_path / "file")
    with pytest.raises(OSError, match=r"/file'"):
        read_regular(tmp_path / "file")


def test_a_plain_file_is_read_up_to_its_bound(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"four")
    assert read_regular(file, 4) == b"four"
    with pytest.raises(OSError, match="longer than 3 bytes"):
        read_regular(file, 3)
