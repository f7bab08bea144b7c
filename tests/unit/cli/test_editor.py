"""The reader's editor gets an absolute path and a line in its own form, and no shell is asked."""

from pathlib import Path

import pytest

from penstock.cli.editor import Editor, find_editor
from penstock.kernel.errors import Invalid

FILE = Path("/srv/a b/-x\n$(y).py")


def arguments(program, file=FILE):
    return Editor((f"/opt/bin/{program}", "-w"), "EDITOR").arguments(file, 12)[2:]


@pytest.mark.parametrize(
    ("programs", "told"),
    [
        ("vi vim nvim nano micro emacs emacsclient kak gvim gedit", ["+12", str(FILE)]),
        ("code codium code-insiders cursor code.cmd", ["--goto", f"{FILE}:12"]),
        ("subl zed hx helix", [f"{FILE}:12"]),
        ("idea pycharm idea.sh kate mate", ["--line", "12", str(FILE)]),
        ("ed my-script cat", [str(FILE)]),
    ],
)
def test_each_editor_is_told_the_line_in_its_own_form(programs, told):
    assert [arguments(one) for one in programs.split()] == [told] * len(programs.split())


def test_a_colon_in_a_name_is_not_taken_for_a_line():
    file = Path("/srv/a:5")
    assert arguments("code", file) == arguments("subl", file) == ["/srv/a:5"]
    assert arguments("vim", file) == ["+12", "/srv/a:5"]


def test_a_relative_path_could_be_an_option():
    with pytest.raises(ValueError, match="absolute"):
        arguments("vim", Path("-rf"))


@pytest.fixture
def program(tmp_path):
    """Return a function that makes a program of a name and returns an environment where it is found."""

    def make(name):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
        return {"PATH": f"{path.parent}:/usr/bin:/bin", "EDITOR": name}

    return make


def test_visual_comes_before_editor(program):
    environ = program("vim") | {"VISUAL": ""}
    assert find_editor(environ, on_terminal=True).variable == "EDITOR"
    program("code")
    editor = find_editor(environ | {"VISUAL": "code --wait 'a b' ; $(rm)"}, on_terminal=True)
    assert editor.variable == "VISUAL"
    assert editor.command[1:] == ("--wait", "a b", ";", "$(rm)")


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"EDITOR": " "}, "no_editor", "export EDITOR=vim"),
        ({"EDITOR": "gone -x"}, "editor_not_found", "no program 'gone'"),
        ({"EDITOR": "vim '"}, "editor_not_found", "quotes do not match"),
        ({"EDITOR": "''"}, "editor_not_found", "no program ''"),
        ({"VISUAL": "# vim"}, "editor_not_found", "VISUAL is '# vim'"),
        ({"VISUAL": "gone", "EDITOR": "vim"}, "editor_not_found", "VISUAL is 'gone'"),
    ],
)
def test_an_editor_that_is_not_there_is_an_error_that_says_what_to_do(changes, code, said, program):
    with pytest.raises(Invalid) as caught:
        find_editor(program("vim") | changes, on_terminal=True)
    assert caught.value.code == code
    assert said in caught.value.detail


@pytest.mark.parametrize("name", ["vim", "hx", "my-script"])
def test_an_editor_that_may_draw_on_the_terminal_needs_one(name, program):
    environ = program(name)
    assert find_editor(environ, on_terminal=True).name == name
    with pytest.raises(Invalid) as caught:
        find_editor(environ, on_terminal=False)
    assert caught.value.code == "no_terminal"


def test_an_editor_with_a_window_needs_no_terminal(program):
    assert find_editor(program("code"), on_terminal=False).name == "code"
