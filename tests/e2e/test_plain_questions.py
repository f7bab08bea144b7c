"""The promise of the README on real code: plain words find the right file among the first five hits."""

import sysconfig
from pathlib import Path

import pytest

from tests.e2e.conftest import penstock_json

LIBRARY = Path(sysconfig.get_path("stdlib"))
FILES = """
asyncio/events.py asyncio/queues.py asyncio/runners.py asyncio/tasks.py copy.py csv.py gzip.py heapq.py http/client.py
http/server.py json/__init__.py json/decoder.py json/encoder.py shlex.py smtplib.py tempfile.py textwrap.py
urllib/request.py
"""

#: Hundreds of chunks are embedded: minutes on a machine that is busy with the other half of the suite.
pytestmark = pytest.mark.timeout(300)

QUESTIONS = {
    "parse a JSON string": {"json/__init__.py", "json/decoder.py"},
    "send an HTTP request through a proxy": {"urllib/request.py", "http/client.py"},
    "schedule a coroutine on another thread": {"asyncio/tasks.py", "asyncio/events.py"},
    "read a csv file into dictionaries": {"csv.py"},
    "quote a string for the shell": {"shlex.py"},
    "wrap text to a given width": {"textwrap.py"},
    "send an email over SMTP": {"smtplib.py"},
    "create a temporary file": {"tempfile.py"},
}


@pytest.fixture(scope="module")
def library(tmp_path_factory, models):
    """Return a data directory with a part of the standard library indexed."""
    root = tmp_path_factory.mktemp("library")
    data_dir = tmp_path_factory.mktemp("data")
    (data_dir / "models").symlink_to(models)
    for name in FILES.split():
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((LIBRARY / name).read_bytes())
    report = penstock_json("index", root, "--data-dir", data_dir)
    assert (report["indexed"], report["failed"]) == (len(FILES.split()), 0)
    return data_dir


def test_plain_words_find_the_right_file_among_the_first_five(library):
    missed = {}
    for question, right in QUESTIONS.items():
        hits = penstock_json("search", question, "--limit", "5", "--data-dir", library)["hits"]
        found = [hit["path"] for hit in hits]
        if not right & set(found):
            missed[question] = found
    assert missed == {}
