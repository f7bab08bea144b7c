"""Editor of the person at the terminal: how it is told to open a file at a line, and its run without a shell."""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.kernel.errors import Invalid

#: Variables that name it, the first one that is set.
VARIABLES: Final = ("VISUAL", "EDITOR")

#: Ways to say a line, by the name of the program: before the file, as a suffix of its name, or as an option's value.
_PLUS: Final = "+{line}"
_SUFFIX: Final = "{file}:{line}"
_GOTO: Final = "--goto"
_LINE: Final = "--line"

#: Editors that use the terminal. Any other name is taken for one of them, and gets no line.
_TERMINAL_EDITORS: Final[dict[str, str]] = {
    **dict.fromkeys(("vi", "vim", "nvim", "vimx", "view", "nano", "pico", "micro"), _PLUS),
    **dict.fromkeys(("emacs", "emacsclient", "mg", "jmacs", "joe", "kak", "vis"), _PLUS),
    **dict.fromkeys(("hx", "helix"), _SUFFIX),
}
#: Editors with a window of their own.
_WINDOW_EDITORS: Final[dict[str, str]] = {
    **dict.fromkeys(("gvim", "mvim", "gedit", "bbedit"), _PLUS),
    **dict.fromkeys(("subl", "sublime_text", "zed", "zeditor"), _SUFFIX),
    **dict.fromkeys(("code", "code-insiders", "code-oss", "codium", "vscodium", "cursor", "windsurf"), _GOTO),
    **dict.fromkeys(("idea", "pycharm", "clion", "goland", "webstorm", "phpstorm", "rubymine", "rider"), _LINE),
    **dict.fromkeys(("rustrover", "mate", "kate", "kwrite", "geany", "mousepad"), _LINE),
}
#: Ends of a program's name that say how it is started, not which it is.
_STARTERS: Final = (".sh", ".exe", ".cmd")


@dataclass(frozen=True, slots=True)
class Editor:
    """An editor.

    Attributes:
        command: Absolute path of the program, and the arguments that the variable gives it.
        variable: The variable that named it.
    """

    command: Sequence[str]
    variable: str

    @property
    def name(self) -> str:
        """Return the name of the program, without an end such as ``.sh``."""
        name = Path(self.command[0]).name
        return next((name.removesuffix(end) for end in _STARTERS if name.endswith(end)), name)

    @property
    def needs_terminal(self) -> bool:
        """Return whether it may draw on the terminal; an editor that is not known may."""
        return self.name not in _WINDOW_EDITORS

    def arguments(self, file: Path, line: int) -> list[str]:
        """Return the command line that opens a file at a line; at its beginning in an editor that is not known.

        Args:
            file: Its absolute path, so that no name can be read as an option.
            line: From 1.
        """
        if not file.is_absolute():
            raise ValueError("an editor is given absolute paths only")
        form = (_TERMINAL_EDITORS | _WINDOW_EDITORS).get(self.name, "")
        if form in (_SUFFIX, _GOTO) and ":" in str(file):
            # Such an editor would take what follows the colon for a line, and open another file.
            form = ""
        if form == _PLUS:
            return [*self.command, _PLUS.format(line=line), str(file)]
        if form == _LINE:
            return [*self.command, _LINE, str(line), str(file)]
        place = _SUFFIX.format(file=file, line=line) if form else str(file)
        return [*self.command, *([_GOTO] if form == _GOTO else []), place]


def find_editor(environ: Mapping[str, str], *, on_terminal: bool) -> Editor:
    """Return the editor that ``VISUAL`` or else ``EDITOR`` names.

    Args:
        environ: The environment.
        on_terminal: Whether standard input and output are a terminal.

    Raises:
        Invalid: None is named (``no_editor``), it is not there (``editor_not_found``), or it needs a terminal
            (``no_terminal``).
    """
    variable = next((name for name in VARIABLES if environ.get(name, "").strip()), "")
    if not variable:
        detail = "no editor is set; say which in VISUAL or EDITOR, for example: export EDITOR=vim"
        raise Invalid(detail, field="EDITOR", code="no_editor")
    value = environ[variable]
    try:
        program, *arguments = shlex.split(value)
    except ValueError as error:
        detail = f"{variable} is {value!r}, whose quotes do not match"
        raise Invalid(detail, field=variable, code="editor_not_found") from error
    found = shutil.which(program, path=environ.get("PATH")) if program else None
    if found is None:
        detail = f"{variable} is {value!r}, and no program {program!r} is found; name one that is on PATH"
        raise Invalid(detail, field=variable, code="editor_not_found")
    editor = Editor((str(Path(found).absolute()), *arguments), variable)
    if editor.needs_terminal and not on_terminal:
        detail = f"{editor.name} needs a terminal, and standard input or output is none; run --open without a pipe"
        raise Invalid(detail, field=variable, code="no_terminal")
    return editor


def open_in_editor(editor: Editor, file: Path, line: int) -> None:
    """Run the editor on a file, and wait until it ends.

    Raises:
        Invalid: It ended with an error (``editor_failed``).
        OSError: It cannot be run.
    """
    # As in git, Ctrl-C and Ctrl-\ are the editor's as long as it runs. It would inherit SIG_IGN, but no handler.
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGQUIT)}
    try:
        code = subprocess.run(editor.arguments(file, line), check=False).returncode  # noqa: S603 - without a shell
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if code:
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        raise Invalid(f"the editor {editor.name} {how}", field=editor.variable, code="editor_failed")
