from pathlib import Path

import pytest

from penstock.cli.data_directory import choose_data_dir

HOME = Path("/home/ann")


def test_what_is_wanted_wins(tmp_path):
    (tmp_path / ".penstock").mkdir()
    assert choose_data_dir("/data", {"XDG_DATA_HOME": "/x"}, tmp_path, HOME) == Path("/data")
    assert choose_data_dir("data", {}, tmp_path, HOME) == tmp_path / "data"
    assert choose_data_dir("~/data", {}, tmp_path, HOME) == HOME / "data"
    assert choose_data_dir("~", {}, tmp_path, HOME) == HOME


def test_the_local_directory_comes_next_where_it_exists(tmp_path):
    (tmp_path / ".penstock").mkdir()
    assert choose_data_dir("", {"XDG_DATA_HOME": "/x"}, tmp_path, HOME) == tmp_path / ".penstock"


def test_a_local_file_is_no_directory(tmp_path):
    (tmp_path / ".penstock").touch()
    assert choose_data_dir("", {}, tmp_path, HOME) == HOME / ".local/share/penstock"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"XDG_DATA_HOME": "/x"}, Path("/x/penstock")),
        ({"XDG_DATA_HOME": ""}, HOME / ".local/share/penstock"),
        ({"XDG_DATA_HOME": "relative"}, HOME / ".local/share/penstock"),
        ({}, HOME / ".local/share/penstock"),
    ],
)
def test_else_the_users_data_directory(environ, expected, tmp_path):
    assert choose_data_dir("", environ, tmp_path, HOME) == expected
