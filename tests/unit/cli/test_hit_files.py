"""A hit's file is found below its source's root alone, and what has become of it is told."""

import os

import pytest

from penstock.cli.hit_files import file_or_none, file_url, find_file, present_line, read_lines, staleness
from penstock.client import Hit
from penstock.kernel.errors import Invalid

TEXT = "def parse():\n    return 1"


def hit(path="a.py", id=None, text=TEXT, first=2, last=3):
    return Hit(id if id is not None else f"tree:{path}", 0.5, text, path, first, last)


@pytest.fixture
def root(tmp_path):
    """Return the root of a source with one file, beside a secret."""
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "a.py").write_text(f"import x\n{TEXT}\n")
    return root


def refusal(one, roots):
    with pytest.raises(Invalid) as caught:
        find_file(one, roots)
    assert file_or_none(one, roots) is None
    return caught.value.code


def test_the_file_is_below_the_root(root):
    assert find_file(hit(), {"tree": str(root)}) == (root / "a.py").resolve()
    (root / "link.py").symlink_to("a.py")
    assert find_file(hit("link.py"), {"tree": str(root)}) == (root / "a.py").resolve()
    (moved := root.parent / "moved").symlink_to(root)
    assert find_file(hit(), {"tree": str(moved)}) == (root / "a.py").resolve()


@pytest.mark.parametrize("path", ["-rf", "+12", "a\nb.py", "a b$(x).py", "--cmd=q"])
def test_an_odd_name_becomes_an_absolute_path(path, root):
    (root / path).write_text("x")
    assert find_file(hit(path), {"tree": str(root)}) == root.resolve() / path


@pytest.mark.parametrize("path", ["../secret", "sub/../../secret", "sub/../a.py", "{root}/a.py", "/etc/passwd"])
def test_no_path_leaves_the_root(path, root):
    assert refusal(hit(path.format(root=root)), {"tree": str(root)}) == "outside_of_root"


def test_no_link_leaves_the_root(root):
    (root / "out").symlink_to(root.parent / "secret")
    (root / "up").symlink_to(root.parent, target_is_directory=True)
    assert refusal(hit("out"), {"tree": str(root)}) == "outside_of_root"
    assert refusal(hit("up/secret"), {"tree": str(root)}) == "outside_of_root"
    assert staleness(hit("out"), {"tree": str(root)}) == "has left its root"


def test_only_files_are_found(root):
    os.mkfifo(root / "pipe")
    (root / "loop").symlink_to("loop")
    for path in ("gone.py", "sub", "pipe", "loop", "a.py/b", "nul\0", "x" * 5000, "", "."):
        assert refusal(hit(path), {"tree": str(root)}) == "file_not_found"
    assert refusal(hit(), {"tree": str(root / "gone")}) == "file_not_found"


def test_what_is_no_file_of_a_source_here_is_told_apart(root):
    assert refusal(hit("note", id="note-7"), {"tree": str(root)}) == "no_local_file"
    assert refusal(hit("a.py", id=f"{root}/a.py"), {"tree": str(root)}) == "no_local_file"
    assert refusal(hit("Issue 7", id="tree:7"), {"tree": str(root)}) == "no_local_file"
    assert refusal(hit(), {}) == "no_local_file"
    assert refusal(hit(), {"tree": ""}) == "source_elsewhere"


def test_a_file_is_stale_where_the_lines_of_the_hit_are_others(root):
    roots = {"tree": str(root)}
    assert staleness(hit(), roots) == ""
    (root / "a.py").write_text(f"import x\n{TEXT}\n# more\n")
    assert staleness(hit(), roots) == ""
    (root / "a.py").write_text(f"import x\n\n{TEXT}\n")
    assert staleness(hit(), roots) == "has changed"
    (root / "a.py").write_text("")
    assert staleness(hit(), roots) == "has changed"
    (root / "a.py").unlink()
    assert staleness(hit(), roots) == "is gone"


def test_of_what_cannot_be_compared_nothing_is_said(root):
    roots = {"tree": str(root)}
    (root / "a.ipynb").write_text("{}")
    (root / "binary").write_bytes(b"\0\1\2")
    assert staleness(hit("a.ipynb"), roots) == ""
    assert staleness(hit("binary"), roots) == ""
    assert staleness(hit(first=0, last=0), roots) == ""
    assert staleness(hit(id="note"), roots) == ""
    assert read_lines(root / "gone") is None


def test_part_of_an_over_long_line_is_as_indexed(root):
    (root / "long").write_text("a" * 500 + "b" * 500)
    assert staleness(hit("long", text="b" * 400, first=1, last=1), {"tree": str(root)}) == ""
    assert staleness(hit("long", text="c", first=1, last=1), {"tree": str(root)}) == "has changed"


def test_other_encodings_are_read_as_they_are_indexed(root):
    (root / "latin").write_bytes("x\ncaf\xe9 = 1\ncaf\xe9 = 2\n".encode("cp1252"))
    assert staleness(hit("latin", text="café = 1\ncafé = 2"), {"tree": str(root)}) == ""


def test_a_line_that_has_moved_is_found_nearest_to_where_it_was():
    lines = ["x", "a", "b", "a", "c", "a"]
    assert present_line(lines, 3, "a") == 2
    assert present_line(lines, 5, "a") == 4
    assert present_line(lines, 99, "a") == 6
    assert present_line(lines, 1, "z") is None


def test_a_url_has_no_character_that_could_end_it(tmp_path):
    name = "a b\x1b\\\x07;é\udce9.py"
    assert file_url(tmp_path / name, "ho st") == f"file://ho%20st{tmp_path}/a%20b%1B%5C%07%3B%C3%A9%E9.py"
