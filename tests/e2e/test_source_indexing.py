"""A server indexes and watches sources itself, below the directories that it was given and nowhere else."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.client import Client, RootDirectory
from penstock.kernel.errors import Invalid
from tests.e2e.conftest import Server, penstock, penstock_json, start

LATE_S = 30.0


class Served:
    """A server that may index below a directory, and a tree there.

    Attributes:
        roots: What the server may index.
        tree: A tree below it.
    """

    def __init__(self, tmp_path: Path, data_dir: Path) -> None:
        self.roots, self.data_dir = tmp_path / "srv", data_dir
        self.tree = self.roots / "tree"
        self.tree.mkdir(parents=True)
        for number in range(8):
            (self.tree / f"f{number}.py").write_text(f"def first_{number}(): return {number}\n")
        (self.tree / "everything").symlink_to("/")
        (self.tree / "loop").symlink_to("..")
        self.server: Server = self.started()
        with self.client() as client:
            client.create_collection("default")

    def started(self) -> Server:
        return start(self.data_dir, environ={"INDEX_ROOTS": str(self.roots)})

    def client(self) -> Client:
        return Client(self.server.url)

    def watch(self, root: Path | str, name: str = "tree", *, on: bool = True) -> Any:
        with self.client() as client:
            return client.put_source(name, root=RootDirectory(path=str(root)), watch=on)

    def source(self, name: str = "tree") -> Any:
        with self.client() as client:
            return next((one for one in client.list_sources() if one.name == name), None)

    def until(self, holds: Callable[[], Any], *, within_s: float = LATE_S) -> float:
        began_s = time.monotonic()
        while not holds():
            assert time.monotonic() < began_s + within_s, self.source()
            time.sleep(0.05)
        return time.monotonic() - began_s

    def until_watching(self, documents: int = 8) -> None:
        self.until(lambda: (one := self.source()).watch.state == "watching" and one.documents == documents)

    def finds(self, words: str, path: str) -> bool:
        with self.client() as client:
            hits = client.search(words, weights={"dense": 0.0, "sparse": 1.0}, rerank=False).hits
            return any(hit.path == path and words in hit.text for hit in hits)

    def watcher(self) -> int | None:
        """Return the id of the process that watches, if there is one."""
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                try:
                    command = (process / "cmdline").read_text()
                    parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
                except OSError:
                    continue
                if "penstock.indexing.sources.process" in command and parent == str(self.server.process.pid):
                    return int(process.name)
        return None


@pytest.fixture
def served(tmp_path: Path, data_dir: Path) -> Iterator[Served]:
    made = Served(tmp_path, data_dir)
    yield made
    if made.server.process.poll() is None:
        made.server.terminate()
    made.server.process.stdout.close()


def test_a_source_is_indexed_followed_and_watched_again_after_a_restart(served):
    assert served.watcher() is None
    assert served.watch(served.tree).watch.state == "starting"
    served.until_watching()
    one = served.source()
    assert (one.documents, one.run.indexed, one.roots[0].watch) == (8, 8, True)
    (served.tree / "f1.py").write_text("def zebra(): return 1\n")
    served.until(lambda: served.finds("zebra", "f1.py"))
    (served.tree / "f2.py").unlink()
    served.until(lambda: served.source().documents == 7)
    table = penstock("sources", "--data-dir", served.data_dir).stdout
    assert "watching" in table

    began_s = time.monotonic()
    code, _ = served.server.terminate()
    assert (code, time.monotonic() - began_s < 10) == (0, True)
    (served.tree / "f3.py").write_text("def walrus(): return 1\n")
    served.server = served.started()
    served.until(lambda: served.finds("walrus", "f3.py"))
    served.until_watching(7)
    (served.tree / "f4.py").write_text("def ostrich(): return 1\n")
    served.until(lambda: served.finds("ostrich", "f4.py"))


def test_a_killed_server_leaves_no_process_and_a_killed_process_is_started_again(served):
    served.watch(served.tree)
    served.until_watching()
    first = served.watcher()
    os.kill(first, signal.SIGKILL)
    served.until(lambda: served.watcher() not in (None, first))
    (served.tree / "f1.py").write_text("def zebra(): return 1\n")
    served.until(lambda: served.finds("zebra", "f1.py"))
    second = served.watcher()
    served.server.kill()
    began_s = time.monotonic()
    while Path(f"/proc/{second}").exists():
        assert time.monotonic() < began_s + LATE_S
        time.sleep(0.05)


def test_a_root_that_goes_is_waited_for_and_its_documents_stay(served):
    served.watch(served.tree)
    served.until_watching()
    elsewhere = served.tree.rename(served.roots / "elsewhere")
    served.until(lambda: served.source().watch.state == "waiting")
    assert (served.source().documents, "gone" in served.source().watch.detail) == (8, True)
    (elsewhere / "f1.py").write_text("def walrus(): return 1\n")
    elsewhere.rename(served.tree)
    served.until(lambda: served.finds("walrus", "f1.py"))
    served.until_watching()


def test_a_watch_ends_when_it_is_told_so_or_the_source_is_forgotten(served):
    served.watch(served.tree)
    served.until_watching()
    with served.client() as client:
        assert client.put_source("tree", watch=False).roots[0].watch is False
    served.until(lambda: served.source().watch is None and served.watcher() is None)
    (served.tree / "f1.py").write_text("def zebra(): return 1\n")
    served.watch(served.tree)
    served.until(lambda: served.finds("zebra", "f1.py"))
    # Forgotten in the middle of a run, nothing of it comes back.
    for number in range(200):
        (served.tree / f"g{number}.py").write_text(f"def second_{number}(): return {number}\n")
    served.until(lambda: served.source().documents > 20)
    assert penstock_json("forget", "tree", "--yes", "--data-dir", served.data_dir)["deleted"] > 20
    served.until(lambda: served.watcher() is None)
    with served.client() as client:
        assert list(client.iter_documents()) == []
        assert client.list_sources() == []


@pytest.mark.parametrize("replaced", ["the root", "a directory in it"])
def test_a_link_in_the_place_of_a_directory_leads_nowhere(served, replaced):
    secret = served.roots.parent / "secret"
    (secret / "deep").mkdir(parents=True)
    (secret / "deep" / "s.py").write_text("def kangaroo(): return 1\n")
    (served.tree / "deep").mkdir()
    (served.tree / "deep" / "s.py").write_text("def koala(): return 1\n")
    served.watch(served.tree)
    served.until_watching(9)
    if replaced == "the root":
        served.tree.rename(served.roots / "before")
        served.tree.symlink_to(secret)
        served.until(lambda: "INDEX_ROOTS" in served.source().watch.detail)
        assert (served.source().watch.state, str(secret) in served.source().watch.detail) == ("failed", False)
    else:
        (served.tree / "deep").rename(served.roots / "before")
        (served.tree / "deep").symlink_to(secret / "deep")
        (secret / "deep" / "s.py").write_text("def kangaroo(): return 2\n")
        served.until(lambda: served.source().documents == 8)
    (served.tree / "more.py").write_text("def penguin(): return 1\n")
    served.until(lambda: replaced == "the root" or served.finds("penguin", "more.py"))
    assert not served.finds("kangaroo", "deep/s.py")


def test_what_lies_elsewhere_is_refused(served, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (served.roots / "link").symlink_to(outside)
    (served.roots / "loop").symlink_to(served.roots / "loop")
    (served.roots / "tree-2").mkdir()
    refused = {
        str(outside): "root_not_allowed",
        str(served.roots / "link"): "root_not_allowed",
        str(served.roots / ".." / "outside"): "root_not_allowed",
        f"{served.roots}-2": "root_not_allowed",
        "srv/tree": "root_not_allowed",
        "/": "root_not_allowed",
        "/etc": "root_not_allowed",
        "/no/such/place": "root_not_allowed",
        str(served.tree / "f1.py"): "root_not_found",
        str(served.roots / "none"): "root_not_found",
    }
    for root, code in refused.items():
        with pytest.raises(Invalid) as raised:
            served.watch(root)
        assert raised.value.code == code, root
    served.watch(served.tree)
    with pytest.raises(Invalid) as raised:
        served.watch(served.roots / "tree-2" / ".." / "tree", "other")
    assert raised.value.code == "source_conflict"
