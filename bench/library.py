"""The part of Python's standard library that code questions are asked of, read where it is installed."""

import ast
import sysconfig
from functools import cache
from pathlib import Path

import msgspec

from penstock.indexing.file_reader import read_text

ROOT = Path(sysconfig.get_path("stdlib"))
QUESTIONS = Path(__file__).parent / "questions" / "library.jsonl"

#: Sources, then their tests; a pattern that a Python version has nothing for is left out.
PARTS = """
json/*.py urllib/*.py http/*.py asyncio/*.py concurrent/futures/*.py email/*.py email/mime/*.py logging/*.py
unittest/*.py html/*.py wsgiref/*.py zipfile/*.py
argparse.py calendar.py configparser.py contextlib.py copy.py csv.py dataclasses.py datetime.py _pydatetime.py
difflib.py fnmatch.py functools.py getpass.py glob.py gzip.py heapq.py imaplib.py inspect.py ipaddress.py mimetypes.py
pathlib.py pathlib/*.py pickle.py pprint.py queue.py random.py selectors.py shelve.py shlex.py shutil.py smtplib.py
socket.py socketserver.py ssl.py statistics.py string.py subprocess.py tarfile.py tempfile.py textwrap.py threading.py
timeit.py traceback.py uuid.py warnings.py weakref.py webbrowser.py zipfile.py
test/test_json/*.py test/test_asyncio/test_[fqrst]*.py test/test_asyncio/test_locks.py test/test_urlparse.py
test/test_urllib.py test/test_urllib2.py test/test_robotparser.py test/test_http*.py test/test_logging.py
test/test_concurrent_futures.py test/test_concurrent_futures/*.py test/test_csv.py test/test_tempfile.py
test/test_shutil.py test/test_queue.py test/test_functools.py test/test_contextlib.py test/test_textwrap.py
test/test_shlex.py test/test_difflib.py test/test_configparser.py test/test_socketserver.py test/test_smtplib.py
test/test_threading.py unittest/test/*.py test/test_unittest/*.py
"""


class Question(msgspec.Struct, frozen=True):
    """What somebody asks of the library.

    Attributes:
        kind: ``name`` (an identifier alone), ``mixed`` (one among words), ``words`` (none), ``tests`` (asks for tests).
        query: The question.
        answers: ``file`` or ``file::symbol``, any of which answers it; where Python versions differ, all of them.
    """

    kind: str
    query: str
    answers: list[str]


class Place(msgspec.Struct, frozen=True):
    """Where an answer stands.

    Attributes:
        path: File, relative to the library.
        start: First line of the definition (its ``def``), 0 where the whole file answers.
        end: Last line.
    """

    path: str
    start: int = 0
    end: int = 0

    def is_answered_by(self, path: str, start: int, end: int, *, whole: bool) -> bool:
        """Return whether lines of a file answer.

        Args:
            path: The file.
            start: First line, from 1.
            end: Last line, inclusive.
            whole: Whether lines of the definition suffice; else its beginning must be among them.
        """
        if path != self.path:
            return False
        if not self.start:
            return True
        return start <= self.end and self.start <= end if whole else start <= self.start <= end


def files() -> list[Path]:
    """Return the files of the part, sorted."""
    found = {path for pattern in PARTS.split() for path in ROOT.glob(pattern)}
    return sorted(found)


def documents() -> list[dict[str, str]]:
    """Return the files as documents; ids and paths are relative to the library."""
    return [{"id": name, "path": name, "text": read_text(path).text} for name, path in _named(files())]


def questions() -> list[Question]:
    """Return every question, in the order of the file."""
    return [msgspec.json.decode(line, type=Question) for line in QUESTIONS.read_bytes().splitlines()]


def places(question: Question) -> list[Place]:
    """Return where the answers stand in the library of this Python; those it does not have are left out."""
    found = []
    for answer in question.answers:
        path, _, symbol = answer.partition("::")
        if not symbol and (ROOT / path).is_file():
            found.append(Place(path))
        elif symbol and (lines := _definitions(path).get(symbol)) is not None:
            found.append(Place(path, *lines))
    return found


def _named(paths: list[Path]) -> list[tuple[str, Path]]:
    return [(path.relative_to(ROOT).as_posix(), path) for path in paths]


@cache
def _definitions(path: str) -> dict[str, tuple[int, int]]:
    """Return first and last line of a file's definitions by qualified name; those inside functions are left out."""
    if not (ROOT / path).is_file():
        return {}
    found: dict[str, tuple[int, int]] = {}
    stack: list[tuple[str, ast.AST]] = [("", ast.parse((ROOT / path).read_text(encoding="utf-8")))]
    while stack:
        scope, node = stack.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{scope}{child.name}"
                found.setdefault(name, (child.lineno, child.end_lineno or child.lineno))
                if isinstance(child, ast.ClassDef):
                    stack.append((f"{name}.", child))
            elif isinstance(child, ast.If | ast.Try):
                stack.append((scope, child))
    return found
