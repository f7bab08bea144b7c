"""`penstock watch` follows edits, branch switches, restarts of the server, and roots that go and come."""

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.client import Client
from tests.e2e.conftest import Server, command, environment, penstock, penstock_json, start

#: Seconds on an idle machine from a save to an answer; others may use this one too.
SOON_S = 2.0
LATE_S = 30.0


class Watched:
    """A tree that is watched, and the server that answers.

    Attributes:
        root: The tree, a repository.
        server: The server.
        process: The watcher.
    """

    def __init__(self, root: Path, data_dir: Path, *named: str) -> None:
        self.root, self.data_dir = root, data_dir
        self.server: Server = start(data_dir)
        penstock_json("index", root, "--data-dir", data_dir)
        self.log = data_dir / "watch.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command("watch", *named, "--data-dir", data_dir), cwd=root, stdout=log, stderr=log, env=environment()
            )
        self.until(lambda: "watching" in self.told())

    def told(self) -> str:
        return self.log.read_text()

    def until(self, holds: Callable[[], bool], *, within_s: float = LATE_S) -> float:
        """Wait until something holds; return how long that took."""
        began_s = time.monotonic()
        while not holds():
            assert time.monotonic() < began_s + within_s, self.told()
            time.sleep(0.02)
        return time.monotonic() - began_s

    def paths(self) -> set[str]:
        with Client(self.server.url) as client:
            return {one.path for one in client.iter_documents()}

    def finds(self, words: str, path: str) -> bool:
        with Client(self.server.url) as client:
            hits = client.search(words, weights={"dense": 0.0, "sparse": 1.0}, rerank=False).hits
            return any(hit.path == path and words in hit.text for hit in hits)

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.server.terminate()


@pytest.fixture
def watched(tmp_path: Path, data_dir: Path) -> Iterator[Watched]:
    root = tmp_path / "tree"
    root.mkdir()
    for number in range(20):
        (root / f"f{number}.py").write_text(f"def first_{number}(): return {number}\n")
    git(root, "init", "-q", "-b", "main")
    git(root, "add", ".")
    git(root, "commit", "-qm", "one")
    made = Watched(root, data_dir)
    yield made
    made.end()


def git(root: Path, *arguments: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True, env=environment())


def test_edits_new_files_and_removed_ones_are_followed(watched):
    waits = []
    for number in range(5):
        (watched.root / "f1.py").write_text(f"def zebra_{number}(): return 1\n")
        waits.append(watched.until(lambda word=f"zebra_{number}": watched.finds(word, "f1.py")))
    assert min(waits) < SOON_S
    (watched.root / "deep" / "down").mkdir(parents=True)
    (watched.root / "deep" / "down" / "new.py").write_text("def walrus(): return 1\n")
    watched.until(lambda: watched.finds("walrus", "deep/down/new.py"))
    (watched.root / "f2.py").unlink()
    (watched.root / "f3.py").rename(watched.root / "F3.py")
    watched.until(lambda: {"F3.py"} == watched.paths() & {"f2.py", "f3.py", "F3.py"})
    # A directory in the place of another one: no event tells of the files in it.
    other = watched.root.parent / "other"
    (other / "down").mkdir(parents=True)
    (other / "down" / "new.py").write_text("def penguin(): return 1\n")
    (watched.root / "deep").rename(watched.root.parent / "gone")
    other.rename(watched.root / "deep")
    watched.until(lambda: watched.finds("penguin", "deep/down/new.py"))
    # What is ignored is not indexed because it has changed.
    (watched.root / ".gitignore").write_text("*.secret\n")
    (watched.root / "a.secret").write_text("kangaroo\n")
    (watched.root / "f4.py").write_text("def ostrich(): return 1\n")
    watched.until(lambda: watched.finds("ostrich", "f4.py"))
    assert "a.secret" not in watched.paths()


def test_a_branch_switch_is_one_batch(watched):
    git(watched.root, "checkout", "-qb", "other")
    for number in range(300):
        (watched.root / f"g{number}.py").write_text(f"g{number} = {number}\n")
    git(watched.root, "add", ".")
    git(watched.root, "commit", "-qm", "two")
    watched.until(lambda: len(watched.paths()) == 320, within_s=60)
    git(watched.root, "checkout", "-q", "main")
    told = watched.told()
    # More than half of the documents have gone, which a switch may do: they stay until they are pruned.
    watched.until(lambda: "--prune" in watched.told()[len(told) :])
    for number in range(20):
        (watched.root / f"f{number}.py").write_text(f"def third_{number}(): return {number}\n")
    git(watched.root, "commit", "-qam", "three")
    watched.until(lambda: watched.finds("third_1", "f1.py") and watched.finds("third_19", "f19.py"))
    told = watched.told()
    git(watched.root, "checkout", "-q", "other")
    watched.until(lambda: watched.finds("first_1", "f1.py") and watched.finds("first_19", "f19.py"))
    assert len(watched.paths()) == 320
    watched.until(lambda: "indexed" in watched.told()[len(told) :])
    assert watched.told()[len(told) :].startswith("tree: 20 indexed in")


def test_the_server_may_restart_and_the_root_go_and_come(watched):
    watched.server.terminate()
    (watched.root / "f1.py").write_text("def zebra(): return 1\n")
    watched.until(lambda: "waiting for the server" in watched.told())
    watched.server = start(watched.data_dir)
    watched.until(lambda: watched.finds("zebra", "f1.py"))
    elsewhere = watched.root.rename(watched.root.parent / "elsewhere")
    watched.until(lambda: f"{watched.root} is gone" in watched.told())
    assert len(watched.paths()) == 20
    (elsewhere / "f1.py").write_text("def walrus(): return 1\n")
    elsewhere.rename(watched.root)
    watched.until(lambda: watched.finds("walrus", "f1.py"))
    (watched.root / "f2.py").write_text("def penguin(): return 1\n")
    watched.until(lambda: watched.finds("penguin", "f2.py"))
    penstock_json("forget", "tree", "--yes", "--data-dir", watched.data_dir)
    (watched.root / "f2.py").write_text("def ostrich(): return 1\n")
    assert watched.process.wait(LATE_S) == 0
    assert "tree: forgotten" in watched.told()
    assert watched.paths() == set()


def test_a_root_may_go_at_any_moment_of_a_run(watched):
    elsewhere = watched.root.parent / "elsewhere"
    for number in range(12):
        (watched.root / "f1.py").write_text(f"def lynx_{number}(): return 1\n")
        # From before the batch of changes ends to after the run.
        time.sleep(number * 0.03)
        watched.root.rename(elsewhere)
        time.sleep(0.3)
        elsewhere.rename(watched.root)
        watched.until(lambda word=f"lynx_{number}": watched.finds(word, "f1.py"))
    assert watched.process.poll() is None
    assert len(watched.paths()) == 20


def test_a_source_may_be_named_by_its_root(tmp_path, data_dir):
    root = tmp_path / "tree"
    root.mkdir()
    (root / "a.py").write_text("def first(): return 1\n")
    (watched := Watched(root, data_dir, ".")).until(lambda: "watching" in watched.told())
    (root / "a.py").write_text("def zebra(): return 1\n")
    watched.until(lambda: watched.finds("zebra", "a.py"))
    watched.end()


def test_what_cannot_be_watched_is_refused_with_what_to_do(data_dir):
    done = penstock("watch", "--data-dir", data_dir)
    assert (done.returncode, "penstock serve" in done.stderr) == (2, True)
    server = start(data_dir)
    try:
        penstock("collections", "list", "--data-dir", data_dir)
        with Client(server.url) as client:
            client.create_collection("default")
        done = penstock("watch", "--data-dir", data_dir)
        assert (done.returncode, "penstock index PATH" in done.stderr) == (2, True)
        done = penstock("watch", "absent", "--data-dir", data_dir)
        assert (done.returncode, "absent" in done.stderr) == (2, True)
    finally:
        server.terminate()
