import asyncio
import os
import shutil
import subprocess
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from penstock.client import Collection, IndexedDocument, IndexReport, Problem, Source, StoredDocument
from penstock.indexing.document_records import document_hash
from penstock.indexing.file_reader import FileChanged
from penstock.indexing.sources import index_run as run_module
from penstock.indexing.sources import local_files
from penstock.indexing.sources.index_run import UNREADABLE_MAX, IndexOptions, IndexRun
from penstock.indexing.sources.index_stats import IndexStats
from penstock.kernel.errors import Expired, Invalid, Rejected, Unavailable
from penstock.kernel.settings import HttpSettings, Settings


class FakeIndex:
    """A server of one collection, in memory."""

    def __init__(self):
        self.stored = {}
        self.requests = []
        self.refuse = {}
        self.error = None
        self.in_flight = 0
        self.in_flight_max = 0
        self.sources = {}
        self.replaced = []
        self.pending = []
        self.duplicates = {}
        self.without_duplicates = False
        self.options = {}

    def with_options(self, **options):
        self.options |= options
        return self

    async def list_sources(self, collection):
        counts = Counter(source for _, _, source in self.stored.values())
        return [msgspec.structs.replace(one, documents=counts[name]) for name, one in sorted(self.sources.items())]

    async def put_source(self, name, collection, *, root=None, commit="", run=None, include=None):
        one = self.sources.get(name, Source(name, collection))
        if root is not None:
            one = msgspec.structs.replace(one, roots=[root])
        if include is not None:
            one = msgspec.structs.replace(one, include=include)
        if run is not None:
            one = msgspec.structs.replace(one, run=run, commit=commit, completed_at="now")
        self.sources[name] = one

    async def delete_source(self, name, collection):
        del self.sources[name]
        gone = [id_ for id_, (_, _, source) in self.stored.items() if source == name]
        return await self.delete_documents(collection, ids=gone)

    async def create_collection(self, name):
        self.name = name

    async def iter_documents(self, collection):
        for id_, (hash_, path, source) in sorted(self.stored.items()):
            yield StoredDocument(id_, hash_, 1, path, source)

    async def get_collection(self, name):
        return Collection(name, pending=self.pending.pop(0) if self.pending else 0)

    async def index_documents(self, documents, collection, *, wait):
        assert wait == "words"
        batch = msgspec.json.encode({"documents": documents})
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight, self.in_flight_max)
        await asyncio.sleep(0)
        self.in_flight -= 1
        if self.error is not None:
            raise self.error
        documents = msgspec.json.decode(batch)["documents"]
        self.requests.append((len(documents), len(batch)))
        return IndexReport([self._store(document) for document in documents])

    def _store(self, document):
        name = Path(document["path"]).name
        if name in self.refuse:
            return IndexedDocument(document["id"], "failed", error=Problem(code=self.refuse[name], detail="no"))
        digest = document_hash(document["text"], document["path"], document["language"], {})
        self.stored[document["id"]] = (digest, document["path"], document["source"])
        if document.get("replaces") is not None:
            self.replaced += [document["replaces"]]
            self.stored.pop(document["replaces"], None)
        self.duplicates[document["id"]] = duplicate = document.get("same_as", "")
        shared = duplicate if not self.without_duplicates and self.stored.get(duplicate, ("",))[0] == digest else ""
        return IndexedDocument(document["id"], "indexed" if shared else "searchable", chunks=2, same_as=shared)

    async def delete_documents(self, collection, *, ids):
        for id_ in ids:
            del self.stored[id_]
        return len(ids)


class FakeDisplay:
    def __init__(self):
        self.seen = []

    def show_stage(self, text):
        self.seen.append(text)

    def update(self, tally):
        self.seen.append((tally.files_done, tally.bytes_done))


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    root.mkdir()
    for name in ("a.py", "b.py", "c.md"):
        (root / name).write_text(f"text of {name}\n")
    return root


def run(server, *paths, settings=None, prune=False, source="", worktree=False):
    tally = IndexStats()
    order = IndexOptions(paths, "default", prune=prune, source=source, worktree=worktree)
    asyncio.run(IndexRun(server, settings or Settings(), order, tally, FakeDisplay()).run())
    return tally


def counts(tally):
    return tally.indexed, tally.unchanged, tally.removed, tally.failed


def test_the_second_run_sends_nothing(tree):
    server = FakeIndex()
    assert counts(run(server, tree)) == (3, 0, 0, 0)
    sent = len(server.requests)
    assert counts(run(server, tree)) == (0, 3, 0, 0)
    assert len(server.requests) == sent


def test_documents_are_named_after_their_source_and_shown_from_its_root(tree, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tree)
    server = FakeIndex()
    run(server, link)
    assert {id_: (path, source) for id_, (_, path, source) in server.stored.items()} == {
        f"tree:{name}": (name, "tree") for name in ("a.py", "b.py", "c.md")
    }


def test_changed_files_are_sent_and_vanished_ones_removed(tree):
    server = FakeIndex()
    run(server, tree)
    (tree / "a.py").write_text("another text\n")
    (tree / "b.py").unlink()
    assert counts(run(server, tree)) == (1, 1, 1, 0)
    assert set(server.stored) == {"tree:a.py", "tree:c.md"}


def test_a_part_of_the_tree_keeps_the_paths_of_the_whole(tree):
    (tree / "sub").mkdir()
    (tree / "sub" / "d.py").write_text("d\n")
    server = FakeIndex()
    run(server, tree)
    assert counts(run(server, tree / "sub")) == (0, 1, 0, 0)
    assert server.stored["tree:sub/d.py"][1] == "sub/d.py"


def test_skips_are_counted_by_reason(tree):
    (tree / "empty.py").touch()
    (tree / "image.png").write_bytes(b"x")
    tally = run(FakeIndex(), tree)
    assert tally.skipped == {"empty": 1, "binary": 1}


def test_a_document_that_fails_is_named_and_tried_again(tree):
    server = FakeIndex()
    server.refuse = {"b.py": "timeout"}
    tally = run(server, tree)
    assert counts(tally) == (2, 0, 0, 1)
    assert [(each.path, each.code) for each in tally.errors] == [(str(tree / "b.py"), "timeout")]
    server.refuse = {}
    assert counts(run(server, tree)) == (1, 2, 0, 0)


@pytest.mark.parametrize("error", [Expired("index"), Invalid("too large", code="body_too_large")])
def test_a_batch_that_fails_alone_does_not_end_the_run(tree, error):
    server = FakeIndex()
    server.error = error
    tally = run(server, tree)
    assert counts(tally) == (0, 0, 0, 3)
    assert {each.code for each in tally.errors} == {error.code}


class BusyIndex(FakeIndex):
    """A server that refuses documents for now, as ``refuses`` says of each attempt."""

    def __init__(self, refuses):
        super().__init__()
        self.refuses = refuses
        self.attempts = 0

    def _store(self, document):
        self.attempts += 1
        if self.refuses(self.attempts):
            problem = Problem(code="dependency_busy", detail="store is busy", retryable=True)
            return IndexedDocument(document["id"], "failed", error=problem)
        return super()._store(document)


@pytest.fixture
def hasty(monkeypatch):
    """Pauses of a run that take no time."""
    monkeypatch.setattr(run_module, "PAUSE_S", 0.001)
    monkeypatch.setattr(run_module, "PAUSE_S_MAX", 0.002)


@pytest.mark.usefixtures("hasty")
def test_documents_that_a_busy_server_refused_are_sent_again_and_none_fails(tree):
    for number in range(200):
        (tree / f"{number}.py").write_text(f"{number}\n")
    server = BusyIndex(lambda attempt: attempt % 2)
    tally = run(server, tree)
    assert counts(tally) == (203, 0, 0, 0)
    assert len(server.stored) == 203
    assert tally.refused > 100
    assert (tally.errors, tally.waiting_for) == ([], "")


@pytest.mark.usefixtures("hasty")
def test_a_document_that_is_refused_however_often_is_told_as_failed_and_the_others_are_indexed(tree):
    server = FakeIndex()
    store = server._store

    def refuse_one(document):
        if document["path"] != "b.py":
            return store(document)
        return IndexedDocument(document["id"], "failed", error=Problem(code="timeout", detail="slow", retryable=True))

    server._store = refuse_one
    tally = run(server, tree)
    assert counts(tally) == (2, 0, 0, 1)
    assert [each.code for each in tally.errors] == ["timeout"]
    assert tally.refused == run_module.SENDS_MAX - 1


def test_a_server_that_stays_busy_ends_the_run_with_the_reason_and_what_to_do(tree, monkeypatch):
    monkeypatch.setattr(run_module, "PATIENCE_S", 0.3)
    server = BusyIndex(lambda _: True)
    with pytest.raises(
        Rejected, match=r"busy and has taken nothing for 0 s: store is busy; .* the same command goes on"
    ):
        run(server, tree)


def test_the_client_waits_for_a_busy_server_and_the_display_says_for_what(tree):
    server, tally, display = FakeIndex(), IndexStats(), FakeDisplay()
    IndexRun(server, Settings(), IndexOptions((tree,), "default"), tally, display)
    assert server.options["patience_s"] == run_module.PATIENCE_S
    server.options["on_wait"](Rejected("too many requests"), 3.0)
    assert tally.waiting_for == "too many requests"
    assert display.seen == ["Waiting: too many requests"]


def test_a_lost_server_ends_the_run_with_its_own_error(tree):
    server = FakeIndex()
    server.error = Unavailable("gone", dependency="server")
    with pytest.raises(Unavailable, match="gone"):
        run(server, tree)


def test_requests_are_bounded_in_number_and_in_documents(tree):
    for number in range(250):
        (tree / f"f{number:03}.txt").write_text("x")
    server = FakeIndex()
    tally = run(server, tree)
    assert tally.indexed == 253
    assert server.in_flight_max <= 2
    assert max(count for count, _ in server.requests) <= 100
    assert tally.files_done == tally.files_total
    assert tally.bytes_done == tally.bytes_total


def test_a_file_larger_than_a_request_is_never_sent(tree):
    (tree / "large.txt").write_text("a word " * 800)
    server = FakeIndex()
    tally = run(server, tree, settings=Settings(http=HttpSettings(max_body=4000)))
    assert counts(tally) == (3, 0, 0, 1)
    assert tally.errors[0].code == "too_large"
    assert max(size for _, size in server.requests) <= 4000


def test_an_absent_path_is_refused_before_a_collection_is_made(tree):
    server = FakeIndex()
    with pytest.raises(Invalid, match="no such file"):
        run(server, tree, tree / "absent")
    assert not hasattr(server, "name")


def test_the_home_directory_is_refused_unless_forced(tree, monkeypatch):
    monkeypatch.setenv("HOME", str(tree))
    with pytest.raises(Invalid, match="--force"):
        run(FakeIndex(), tree)
    tally = IndexStats()
    asyncio.run(
        IndexRun(FakeIndex(), Settings(), IndexOptions([tree], "default", force=True), tally, FakeDisplay()).run()
    )
    assert tally.indexed == 3


def test_a_cancelled_run_has_counted_what_was_done(tree):
    server, tally = FakeIndex(), IndexStats()
    add, stored, waiting, calls = server.index_documents, asyncio.Event(), asyncio.Event(), []

    async def first_only(documents, collection, *, wait):
        calls.append(documents)
        if len(calls) > 1:
            await stored.wait()
            waiting.set()
            await asyncio.Event().wait()
        answer = await add(documents, collection, wait=wait)
        stored.set()
        return answer

    server.index_documents = first_only
    (tree / "large.txt").write_text("a word " * 30_000)

    async def main():
        task = asyncio.create_task(
            IndexRun(server, Settings(), IndexOptions([tree], "default"), tally, FakeDisplay()).run()
        )
        await waiting.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    assert tally.indexed == 3
    server.index_documents = add
    assert counts(run(server, tree)) == (1, 3, 0, 0)


def test_vectors_are_waited_for_and_both_times_are_told(tree, monkeypatch):
    monkeypatch.setattr(run_module, "POLL_S", 0)
    server = FakeIndex()
    server.pending = [6, 6, 2]
    display = run(server, tree)
    assert server.pending == []
    assert 0 < display.searchable_s <= display.took_s
    assert (display.chunks, display.chunks_pending, display.notes) == (6, 0, [])


def test_a_server_too_busy_to_count_ends_neither_the_display_nor_the_run(tree, monkeypatch):
    monkeypatch.setattr(run_module, "REFRESH_S", 0)
    server, counts_left = FakeIndex(), iter([Rejected("busy"), Unavailable("away", dependency="server")])
    count, add = server.get_collection, server.index_documents

    async def busy(name):
        if (error := next(counts_left, None)) is not None:
            raise error
        return await count(name)

    async def slow(documents, collection, *, wait):
        for _ in range(20):
            await asyncio.sleep(0)
        return await add(documents, collection, wait=wait)

    server.get_collection, server.index_documents = busy, slow
    assert counts(run(server, tree)) == (3, 0, 0, 0)
    assert next(counts_left, None) is None


def test_vectors_that_are_not_made_end_the_wait_with_a_note(tree, monkeypatch):
    monkeypatch.setattr(run_module, "POLL_S", 0)
    monkeypatch.setattr(run_module, "STALL_S", 0)
    server = FakeIndex()
    server.pending = [6] * 1000
    tally = run(server, tree)
    assert tally.chunks_pending == 6
    (note,) = tally.notes
    assert note.startswith("6 chunks are found by words only")


def test_vanished_files_are_removed_only_below_the_named_paths(tree, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "kept.py").write_text("x\n")
    server = FakeIndex()
    run(server, tree, other)
    server.stored["note-1"] = ("h", "", "")
    (tree / "a.py").unlink()
    (other / "kept.py").unlink()
    assert counts(run(server, tree)) == (0, 2, 1, 0)
    assert "other:kept.py" in server.stored
    assert "note-1" in server.stored


def test_what_cannot_be_read_now_has_not_vanished(tree, monkeypatch):
    (tree / "shut").mkdir()
    (tree / "shut" / "d.py").write_text("d\n")
    server = FakeIndex()
    run(server, tree)
    (tree / "a.py").unlink()
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("shut"):
            raise PermissionError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert counts(run(server, tree)) == (0, 2, 1, 0)
    assert "tree:shut/d.py" in server.stored


def test_with_too_much_unreadable_nothing_is_removed(tree, monkeypatch):
    for number in range(UNREADABLE_MAX + 1):
        (tree / f"shut{number}").mkdir()
    server = FakeIndex()
    run(server, tree)
    (tree / "a.py").unlink()
    scandir = os.scandir

    def refusing(path):
        if "shut" in str(path):
            raise PermissionError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    tally = run(server, tree)
    assert counts(tally) == (0, 2, 0, 0)
    assert tally.skipped == {"unreadable": UNREADABLE_MAX + 1}


def test_a_file_that_vanishes_before_it_is_sent_fails_alone(tree, monkeypatch):
    (tree / "d.py").write_text("d\n")
    encoded = run_module.encode_document

    def vanishing(one, *limits, **how):
        (tree / "b.py").unlink(missing_ok=True)
        return encoded(one, *limits, **how)

    monkeypatch.setattr(run_module, "encode_document", vanishing)
    tally = run(FakeIndex(), tree)
    # The walk may have seen it already, or may not find it any more.
    assert tally.indexed == 3
    assert {each.code for each in tally.errors} <= {"file_vanished"}


def test_a_file_that_keeps_changing_fails_alone(tree, monkeypatch):
    read_text = local_files.read_text

    def changing(path, bytes_max):
        if path.name == "b.py":
            raise FileChanged(path)
        return read_text(path, bytes_max)

    monkeypatch.setattr(local_files, "read_text", changing)
    tally = run(FakeIndex(), tree)
    assert counts(tally) == (2, 0, 0, 1)
    assert tally.errors[0].code == "file_changed"


def test_a_loop_of_directories_ends(tree):
    (tree / "sub").mkdir()
    (tree / "sub" / "up").symlink_to(tree, target_is_directory=True)
    tally = run(FakeIndex(), tree)
    assert counts(tally) == (3, 0, 0, 0)
    assert tally.skipped == {"symlink_loop": 1}


class ForgetfulIndex(FakeIndex):
    """A server that keeps nothing, so that what is measured is the client."""

    def _store(self, document):
        return IndexedDocument(document["id"], "indexed", chunks=1)


def peak(place, files):
    """Return the most memory that Python objects take, in bytes, while a tree of so many files is indexed."""
    root = place / str(files)
    for number in range(files):
        directory = root / f"d{number // 100}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"f{number}.txt").write_text("x")
    tracemalloc.start()
    try:
        assert run(ForgetfulIndex(), root).indexed == files
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_tree(tmp_path):
    # In a process of its own: threads that other tests have left would be counted, too.
    told = (
        f"import pathlib; from {__name__} import peak; place = pathlib.Path({str(tmp_path)!r});"
        "peak(place, 200);"  # what is made once: patterns, tables
        "print(peak(place, 300), peak(place, 3000))"
    )
    command = [sys.executable, "-c", told]
    answer = subprocess.run(command, cwd=Path(__file__).parents[4], capture_output=True, text=True, check=True)
    few, many = map(int, answer.stdout.split())
    assert many < few + 200_000


def test_an_unchanged_tree_is_walked_once(tree, monkeypatch):
    server, walks = FakeIndex(), []
    run(server, tree)
    find = run_module.find_files

    def counted(*how, **options):
        walks.append(how)
        return find(*how, **options)

    monkeypatch.setattr(run_module, "find_files", counted)
    assert counts(run(server, tree)) == (0, 3, 0, 0)
    assert len(walks) == 1
    (tree / "a.py").write_text("changed\n")
    assert counts(run(server, tree)) == (1, 2, 0, 0)
    assert len(walks) == 3


def empty(tree):
    for file in tree.iterdir():
        file.unlink()


def test_an_empty_directory_keeps_what_is_listed_of_it_until_it_is_pruned(tree):
    server = FakeIndex()
    run(server, tree)
    empty(tree)
    tally = run(server, tree)
    assert (counts(tally), len(server.stored)) == ((0, 0, 0, 0), 3)
    assert [(loss.directory, loss.listed, loss.vanished) for loss in tally.kept_directories] == [(tree, 3, 3)]
    tally = run(server, tree, prune=True)
    assert (counts(tally), tally.kept_directories, server.stored) == ((0, 0, 3, 0), [], {})


def test_a_directory_that_lost_most_keeps_it_and_takes_what_is_new(tree):
    for number in range(7):
        (tree / f"{number}.py").write_text("x\n")
    server = FakeIndex()
    run(server, tree)
    for number in range(6):
        (tree / f"{number}.py").unlink()
    (tree / "new.py").write_text("x\n")
    tally = run(server, tree)
    assert (counts(tally), len(server.stored), len(tally.kept_directories)) == ((1, 4, 0, 0), 11, 1)
    (tree / "0.py").write_text("x\n")
    assert counts(run(server, tree)) == (0, 6, 5, 0)


def test_a_directory_that_is_doubtful_holds_up_no_other(tree, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for name in ("k.py", "l.py"):
        (other / name).write_text("x\n")
    server = FakeIndex()
    run(server, tree, other)
    empty(tree)
    (other / "l.py").unlink()
    tally = run(server, tree, other)
    assert (counts(tally), [loss.directory for loss in tally.kept_directories]) == ((0, 1, 1, 0), [tree])
    assert len(server.stored) == 4


def test_what_is_doubtful_in_a_part_is_kept_though_the_whole_was_named(tree):
    part = tree / "part"
    part.mkdir()
    (part / "d.py").write_text("x\n")
    server = FakeIndex()
    run(server, tree)
    empty(part)
    tally = run(server, tree, part)
    assert (counts(tally), [loss.directory for loss in tally.kept_directories]) == ((0, 3, 0, 0), [part])
    assert counts(run(server, tree)) == (0, 3, 1, 0)


def test_a_directory_that_cannot_be_read_is_neither_empty_nor_doubtful(tree, monkeypatch):
    server = FakeIndex()
    run(server, tree)

    def refusing(path):
        raise OSError(5, "Input/output error", path)

    monkeypatch.setattr(os, "scandir", refusing)
    tally = run(server, tree)
    assert (counts(tally), tally.kept_directories, len(server.stored)) == ((0, 0, 0, 0), [], 3)


def test_a_named_file_that_is_not_indexed_any_more_is_removed(tree):
    server = FakeIndex()
    run(server, tree / "a.py")
    (tree / "a.py").write_text("")
    assert counts(run(server, tree / "a.py")) == (0, 0, 1, 0)


def make_legacy(server, tree):
    """Turn what is stored of a tree into what an earlier release stored: ids are the paths of the files."""
    server.stored = {str(tree / path): (hash_, path, "") for hash_, path, _ in server.stored.values()}
    server.sources = {}


def test_documents_of_an_earlier_release_are_given_ids_of_their_source(tree, tmp_path):
    (tree / "gone.py").write_text("x\n")
    server = FakeIndex()
    run(server, tree)
    make_legacy(server, tree)
    server.stored["/elsewhere/a.py"] = ("h", "a.py", "")
    server.stored[str(tree / "note")] = ("h", "no/path/of/it", "")
    (tree / "gone.py").unlink()
    (tree / "b.py").write_text("changed\n")
    tally = run(server, tree)
    assert counts(tally) == (3, 0, 1, 0)
    assert sorted(server.replaced) == [str(tree / name) for name in ("a.py", "b.py", "c.md")]
    assert sorted(server.stored) == ["/elsewhere/a.py", str(tree / "note"), "tree:a.py", "tree:b.py", "tree:c.md"]
    assert counts(run(server, tree)) == (0, 3, 0, 0)


def test_a_migration_that_was_interrupted_goes_on(tree):
    server = FakeIndex()
    run(server, tree)
    new = dict(server.stored)
    make_legacy(server, tree)
    # One is there under both ids: the server was killed before it deleted the old one.
    server.stored["tree:a.py"] = new["tree:a.py"]
    run(server, tree)
    assert server.stored == new


def test_an_earlier_release_s_empty_tree_is_kept(tree):
    server = FakeIndex()
    run(server, tree)
    make_legacy(server, tree)
    empty(tree)
    tally = run(server, tree)
    assert (len(server.stored), len(tally.kept_directories)) == (3, 1)


def test_a_tree_that_has_moved_is_the_same_source(tree, tmp_path):
    server = FakeIndex()
    run(server, tree)
    (tmp_path / "elsewhere").mkdir()
    moved = tree.rename(tmp_path / "elsewhere" / "tree")
    tally = run(server, moved)
    assert counts(tally) == (0, 3, 0, 0)
    assert tally.notes == [f"the source tree was at {tree} and is at {moved} now"]
    assert server.sources["tree"].roots[0].path == str(moved)
    # A mount point without its disk is no tree.
    tree.mkdir()
    assert counts(run(server, moved)) == (0, 3, 0, 0)


def test_another_tree_of_the_name_is_told_and_asks_for_a_name(tree, tmp_path):
    other = tmp_path / "other" / "tree"
    other.mkdir(parents=True)
    (other / "x.py").write_text("x\n")
    server = FakeIndex()
    run(server, tree)
    with pytest.raises(Invalid, match="--source other-tree") as caught:
        run(server, other)
    assert caught.value.code == "source_conflict"
    assert len(server.stored) == 3
    assert counts(run(server, other, source="mine")) == (1, 0, 0, 0)
    assert "mine:x.py" in server.stored
    assert counts(run(server, other)) == (0, 1, 0, 0)
    with pytest.raises(Invalid, match="another"):
        run(server, tree, source="mine")


def test_two_trees_of_one_name_cannot_be_named_at_once(tree, tmp_path):
    other = tmp_path / "other" / "tree"
    other.mkdir(parents=True)
    (other / "x.py").write_text("x\n")
    with pytest.raises(Invalid, match="--source"):
        run(FakeIndex(), tree, other)
    with pytest.raises(Invalid, match="--source"):
        run(FakeIndex(), tree, other, source="both")


def test_a_tree_that_only_has_the_name_of_one_that_is_gone_is_refused(tree, tmp_path):
    server = FakeIndex()
    run(server, tree)
    shutil.rmtree(tree)
    other = tmp_path / "other" / "tree"
    other.mkdir(parents=True)
    (other / "x.py").write_text("x\n")
    with pytest.raises(Invalid, match="another tree") as caught:
        run(server, other)
    assert caught.value.code == "source_conflict"
    assert sorted(server.stored) == ["tree:a.py", "tree:b.py", "tree:c.md"]
    assert counts(run(server, other, prune=True)) == (1, 0, 3, 0)


def test_a_directory_that_is_gone_is_told_when_a_new_source_comes(tree, tmp_path):
    server = FakeIndex()
    run(server, tree)
    shutil.rmtree(tree)
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.py").write_text("x\n")
    (note,) = run(server, other).notes
    assert "`penstock forget tree` removes them" in note
    assert "--source tree" in note
    assert run(server, other).notes == []


def test_a_tree_whose_directory_was_renamed_is_recognised(tree, tmp_path):
    server = FakeIndex()
    run(server, tree)
    renamed = tree.rename(tmp_path / "renamed")
    (renamed / "new.py").write_text("x\n")
    assert counts(run(server, renamed)) == (1, 3, 0, 0)
    assert set(server.sources) == {"tree"}
    assert counts(run(server, renamed)) == (0, 4, 0, 0)


def test_a_tree_that_gets_another_name_is_there_once(tree):
    server = FakeIndex()
    run(server, tree)
    tally = run(server, tree, source="mine")
    assert counts(tally) == (3, 0, 3, 0)
    assert (sorted(server.stored), set(server.sources)) == (["mine:a.py", "mine:b.py", "mine:c.md"], {"mine"})
    assert tally.notes == ["the source tree was the same tree as mine, and is forgotten"]


def test_a_path_inside_a_source_belongs_to_it_and_a_directory_around_updates_all(tree, tmp_path):
    server = FakeIndex()
    run(server, tree)
    (tree / "sub").mkdir()
    (tree / "sub" / "d.py").write_text("d\n")
    assert counts(run(server, tree / "sub")) == (1, 0, 0, 0)
    assert "tree:sub/d.py" in server.stored
    (tmp_path / "loose.py").write_text("x\n")
    (tree / "a.py").unlink()
    tally = run(server, tmp_path)
    assert counts(tally) == (1, 3, 1, 0)
    assert f"{tmp_path.name}:loose.py" in server.stored
    assert set(tally.sources) == {"tree", tmp_path.name}


def test_a_directory_around_sources_is_none_itself_while_it_has_no_file_of_its_own(tree, tmp_path):
    server = FakeIndex()
    run(server, tree)
    assert counts(run(server, tmp_path)) == (0, 3, 0, 0)
    assert set(server.sources) == {"tree"}
    (tmp_path / "loose.py").write_text("x\n")
    assert counts(run(server, tmp_path)) == (1, 3, 0, 0)
    assert set(server.sources) == {"tree", tmp_path.name}


def test_a_source_inside_of_another_takes_its_documents_over(tree, tmp_path):
    server = FakeIndex()
    run(server, tmp_path)
    assert len(server.stored) == 3
    assert counts(run(server, tree, source="inner")) == (3, 0, 0, 0)
    # Those of the outer one are not lost, and no reason to doubt that its disk is there.
    tally = run(server, tmp_path)
    assert (counts(tally), tally.kept_directories) == ((0, 3, 3, 0), [])
    assert sorted(server.stored) == ["inner:a.py", "inner:b.py", "inner:c.md"]


def test_a_run_is_recorded_with_its_source(tree):
    server = FakeIndex()
    server.refuse = {"b.py": "timeout"}
    run(server, tree)
    record = server.sources["tree"]
    assert (record.roots[0].path, record.run.indexed, record.run.failed) == (str(tree), 2, 1)
    assert [(one.path, one.code) for one in record.run.failures] == [("b.py", "timeout")]
    empty(tree)
    run(server, tree)
    assert server.sources["tree"].run.kept == 2


def test_an_interrupted_run_leaves_a_source_that_was_never_completed(tree):
    server = FakeIndex()
    server.error = Unavailable("gone", dependency="server")
    with pytest.raises(Unavailable):
        run(server, tree)
    assert (server.sources["tree"].completed_at, server.sources["tree"].roots[0].path) == ("", str(tree))


def test_a_document_of_the_api_with_an_id_of_the_source_is_taken_over_but_never_removed(tree):
    server = FakeIndex()
    server.stored["tree:a.py"] = ("h", "a.py", "")
    server.stored["tree:gone.py"] = ("h", "gone.py", "")
    assert counts(run(server, tree)) == (3, 0, 0, 0)
    assert server.stored["tree:a.py"][2] == "tree"
    assert "tree:gone.py" in server.stored


def test_a_root_that_vanishes_during_the_run_loses_nothing(tree, monkeypatch):
    server = FakeIndex()
    run(server, tree)
    (tree / "a.py").write_text("changed\n")
    encode = run_module.encode_document

    def vanishing(*how, **named):
        shutil.rmtree(tree, ignore_errors=True)
        return encode(*how, **named)

    monkeypatch.setattr(run_module, "encode_document", vanishing)
    tally = run(server, tree)
    assert (len(server.stored), tally.removed, tally.failed) == (3, 0, 1)


@pytest.mark.parametrize("name", ["a/b", "a:b", "a\nb", "x" * 300, "..", " "])
def test_a_name_that_no_source_can_have_is_refused_before_anything_is_sent(tree, name):
    server = FakeIndex()
    with pytest.raises(Invalid) as caught:
        run(server, tree, source=name)
    assert caught.value.code == "invalid_source"
    assert (server.stored, server.sources) == ({}, {})


def test_text_of_other_encodings_is_sent_as_text_and_counted(tree):
    (tree / "a.py").write_bytes("# Größe\n".encode("latin-1"))
    (tree / "b.py").write_bytes("Bestand\n".encode("utf-16"))
    server = FakeIndex()
    tally = run(server, tree)
    assert tally.encodings == {"cp1252": 1, "utf-16-le": 1}
    assert server.stored["tree:a.py"][0] == document_hash("# Größe\n", "a.py", "python", {})
    assert counts(run(server, tree)) == (0, 3, 0, 0)


def test_what_turns_out_to_be_no_text_is_skipped_and_its_document_removed(tree):
    server = FakeIndex()
    run(server, tree)
    (tree / "a.py").write_bytes(b"x = 1\n" * 2000 + b"\0\1")
    (tree / "d.txt").write_bytes(b"one \x81 and two \x8d\n")
    tally = run(server, tree)
    assert counts(tally) == (0, 2, 1, 0)
    assert tally.skipped == {"binary": 1, "unknown_encoding": 1}
    assert tally.files_done == tally.files_total
    assert "tree:a.py" not in server.stored


def test_a_notebook_is_sent_as_its_cells_however_large_its_pictures(tree):
    cells = [{"cell_type": "code", "source": ["x = 1"], "outputs": [{"data": {"image/png": "A" * 2_000_000}}]}]
    book = tree / "d.ipynb"
    book.write_text(msgspec.json.encode({"cells": cells, "metadata": {}}).decode())
    server = FakeIndex()
    assert counts(run(server, tree)) == (4, 0, 0, 0)
    cells[0]["outputs"] = []
    book.write_text(msgspec.json.encode({"cells": cells, "metadata": {}}).decode())
    assert counts(run(server, tree)) == (0, 4, 0, 0)


def test_a_notebook_of_too_many_cells_and_one_of_too_many_bytes_are_skipped(tree):
    cells = [{"cell_type": "code", "source": ["x = 1\n" * 200_000]}]
    (tree / "d.ipynb").write_text(msgspec.json.encode({"cells": cells}).decode())
    with (tree / "e.ipynb").open("wb") as file:
        file.truncate(100_000_000)
    tally = run(FakeIndex(), tree)
    assert counts(tally) == (3, 0, 0, 0)
    assert tally.skipped == {"too_large": 2}


def test_patterns_of_the_run_include_what_is_left_out(tree):
    (tree / "vendor").mkdir()
    (tree / "vendor" / "own.py").write_text("own\n")
    server, tally = FakeIndex(), IndexStats()
    order = IndexOptions([tree], "default", include=["vendor/"])
    asyncio.run(IndexRun(server, Settings(), order, tally, FakeDisplay()).run())
    assert "tree:vendor/own.py" in server.stored
    assert tally.skipped == {}


@pytest.fixture
def own(tree):
    """A repository with code of its own where others keep what is not theirs."""
    (tree / ".git").mkdir()
    files = ("shop/vendor/account.py", "models/a.mo", "odd[1]/vendor/x.py", "third_party/x.py", "build/made.py")
    for name in files:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(f"text of {name}\n")
    (tree / "bundle.min.js").write_text("x\n")
    (tree / ".gitignore").write_text("build/\n")
    return tree


def included_run(server, *paths, include=()):
    tally = IndexStats()
    order = IndexOptions(paths, "default", include=include)
    asyncio.run(IndexRun(server, Settings(), order, tally, FakeDisplay()).run())
    return tally


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("shop/vendor", "/shop/vendor/"),
        ("shop/vendor/account.py", "/shop/vendor/account.py"),
        ("odd[1]/vendor", "/odd\\[1]/vendor/"),
        ("bundle.min.js", "/bundle.min.js"),
        ("build", "/build/"),
    ],
)
def test_a_named_path_that_is_left_out_stays_included(own, name, pattern):
    server = FakeIndex()
    run(server, own)
    assert counts(run(server, own / name)) == (1, 0, 0, 0)
    assert server.sources["tree"].include == [pattern]
    assert counts(run(server, own))[2:] == (0, 0)
    assert counts(run(server, own / "shop"))[2:] == (0, 0)
    assert any(id_.startswith(f"tree:{name}") for id_ in server.stored)


def test_a_named_path_that_is_not_left_out_is_not_kept(own):
    server = FakeIndex()
    run(server, own / "models", own / "models" / "a.mo", own)
    assert server.sources["tree"].include == []


@pytest.mark.parametrize(
    ("below", "pattern", "kept", "ids"),
    [
        ("", "vendor/", "vendor/", {"tree:shop/vendor/account.py", "tree:odd[1]/vendor/x.py"}),
        ("shop", "vendor/", "/shop/**/vendor/", {"tree:shop/vendor/account.py"}),
        ("shop", "vendor/account.py", "/shop/vendor/account.py", {"tree:shop/vendor/account.py"}),
        ("shop", "/vendor", "/shop/vendor", {"tree:shop/vendor/account.py"}),
    ],
)
def test_patterns_of_a_run_stay(own, below, pattern, kept, ids):
    server = FakeIndex()
    run(server, own)
    before = set(server.stored)
    included_run(server, own / below, include=[pattern])
    assert server.sources["tree"].include == [kept]
    assert set(server.stored) - before == ids
    assert counts(run(server, own)) == (0, len(server.stored), 0, 0)


def test_a_file_of_choices_takes_back_what_was_included(own):
    server = FakeIndex()
    included_run(server, own, include=["vendor/"])
    (own / ".penstockignore").write_text("/shop/vendor/\n")
    assert counts(run(server, own))[2] == 1
    assert "tree:shop/vendor/account.py" not in server.stored


def test_too_many_patterns_are_refused_before_anything_is_sent(own):
    server = FakeIndex()
    with pytest.raises(Invalid, match=r"\.penstockignore"):
        included_run(server, own, include=[f"{number}/" for number in range(100)])
    assert server.stored == {}


def link_tree(repository, linked):
    """Make a linked work tree, as ``git worktree add`` does."""
    own = repository / ".git" / "worktrees" / linked.name
    own.mkdir(parents=True)
    (own / "HEAD").write_text(f"ref: refs/heads/{linked.name}\n")
    (own / "commondir").write_text("../..\n")
    linked.mkdir(parents=True)
    (linked / ".git").write_text(f"gitdir: {own}\n")
    return linked


def test_a_linked_work_tree_inside_of_a_source_is_a_source_of_its_own(tree):
    server = FakeIndex()
    linked = link_tree(tree, tree / ".worktrees" / "one")
    (linked / "a.py").write_text("text of a.py\n")
    assert counts(run(server, tree)) == (3, 0, 0, 0)
    assert counts(run(server, linked)) == (1, 0, 0, 0)
    assert "tree@one:a.py" in server.stored
    assert counts(run(server, tree)) == (0, 4, 0, 0)


def test_files_that_are_left_out_by_now_are_removed_however_many_they_are(tree):
    for number in range(9):
        (tree / f"table{number}.csv").write_text("name,place\nAda,London\n")
    server = FakeIndex()
    assert counts(run(server, tree)) == (12, 0, 0, 0)
    for number in range(9):
        (tree / f"table{number}.csv").write_text("1,2,3,4\n" * 900)
    tally = run(server, tree)
    assert counts(tally) == (0, 3, 9, 0)
    assert tally.kept_directories == []


def test_files_that_come_back_after_the_walk_are_not_taken_for_left_out(tree, monkeypatch):
    for number in range(9):
        (tree / f"{number}.py").write_text("x\n")
    server = FakeIndex()
    run(server, tree)
    elsewhere = tree.parent / "elsewhere"
    shutil.copytree(tree, elsewhere)
    empty(tree)
    (tree / "a.py").write_text("changed\n")
    remove = IndexRun._remove

    async def mounted(self, scope):
        shutil.copytree(elsewhere, tree, dirs_exist_ok=True)
        await remove(self, scope)

    monkeypatch.setattr(IndexRun, "_remove", mounted)
    tally = run(server, tree)
    assert (tally.removed, len(server.stored)) == (0, 12)


def test_a_run_over_changes_reads_those_files_alone(tree, monkeypatch):
    (tree / "deep" / "down").mkdir(parents=True)
    (tree / "deep" / "down" / "d.py").write_text("d\n")
    server, read = FakeIndex(), []
    run(server, tree)
    for name in ("a.py", "b.py", "deep/down/d.py", "new.py"):
        (tree / name).write_text("changed\n")
    (tree / "c.md").unlink()
    read_text = local_files.read_text

    def noting(path, *how):
        read.append(path.name)
        return read_text(path, *how)

    monkeypatch.setattr(local_files, "read_text", noting)
    tally = IndexStats()
    order = IndexOptions([tree], "default", changed=frozenset({str(tree / "a.py"), str(tree / "deep")}))
    asyncio.run(IndexRun(server, Settings(), order, tally, FakeDisplay()).run())
    assert counts(tally) == (3, 1, 1, 0)
    assert set(read) == {"a.py", "d.py", "new.py"}


@pytest.fixture
def linked(tree, tmp_path):
    """A linked work tree whose second file differs, and which has a file more."""
    copied = link_tree(tree, tmp_path / "fix")
    for name in ("a.py", "b.py", "c.md"):
        (copied / name).write_text(f"text of {name}\n")
    (copied / "b.py").write_text("another text\n")
    (copied / "d.py").write_text("text of d.py\n")
    return copied


def test_files_of_a_linked_work_tree_name_the_documents_with_the_same_content(tree, linked):
    server = FakeIndex()
    assert run(server, tree).shared == {}
    tally = run(server, linked)
    assert (counts(tally), tally.shared) == ((4, 0, 0, 0), {"tree": 2})
    assert {id_: duplicate for id_, duplicate in server.duplicates.items() if id_.startswith("tree@fix:")} == {
        "tree@fix:a.py": "tree:a.py",
        "tree@fix:b.py": "tree:b.py",
        "tree@fix:c.md": "tree:c.md",
        "tree@fix:d.py": "",
    }
    # A file that is known has its own former version.
    (linked / "d.py").write_text("other text of d.py\n")
    (linked / "c.md").write_text("other text of c.md\n")
    assert run(server, linked).shared == {}
    assert server.duplicates["tree@fix:c.md"] == ""
    # The other way round, too: the branch was merged.
    (tree / "d.py").write_text("other text of d.py\n")
    (tree / "b.py").write_text("another text\n")
    tally = run(server, tree)
    assert (counts(tally), tally.shared) == ((2, 2, 0, 0), {"tree@fix": 2})


def test_a_file_takes_its_duplicate_from_any_source_that_has_it(tree, linked, tmp_path):
    server = FakeIndex()
    run(server, tree)
    run(server, linked)
    third = link_tree(tree, tmp_path / "third")
    for name in ("a.py", "b.py", "d.py"):
        shutil.copy(linked / name, third / name)
    assert run(server, third).shared == {"tree": 1, "tree@fix": 2}


def test_a_file_that_differs_everywhere_names_that_of_its_repository(tree, linked, tmp_path):
    server = FakeIndex()
    other = tmp_path / "another"
    other.mkdir()
    (other / "b.py").write_text("text of another b.py\n")
    run(server, other)
    run(server, tree)
    run(server, linked)
    assert server.duplicates["tree:b.py"] == "another:b.py"
    assert server.duplicates["tree@fix:b.py"] == "tree:b.py"


def test_what_the_server_could_not_share_is_not_told_as_shared(tree, linked):
    server = FakeIndex()
    run(server, tree)
    server.without_duplicates = True
    tally = run(server, linked)
    assert (counts(tally), tally.shared) == ((4, 0, 0, 0), {})


def test_a_new_work_tree_is_not_taken_for_one_that_was_removed(tree, linked, tmp_path):
    server = FakeIndex()
    run(server, tree)
    run(server, linked)
    shutil.rmtree(linked)
    shutil.rmtree(tree / ".git" / "worktrees" / "fix")
    again = link_tree(tree, tmp_path / "next")
    for name in ("a.py", "c.md"):
        shutil.copy(tree / name, again / name)
    tally = run(server, again)
    assert (counts(tally), tally.shared) == ((2, 0, 0, 0), {"tree": 2})
    assert "penstock forget tree@fix" in tally.notes[0]


def clone(tree, copied):
    (tree / ".git").mkdir(exist_ok=True)
    shutil.copytree(tree, copied)
    return copied


@pytest.mark.parametrize(
    ("place", "name"), [("second", "tree@second"), ("b/tree", "tree@b"), ("tree/inside", "tree@inside")]
)
def test_another_clone_is_a_source_of_its_own_if_it_is_said_to_be_a_work_tree(tree, tmp_path, place, name):
    server = FakeIndex()
    (tree / ".git").mkdir()
    (tree / ".git" / "config").write_text('[remote "origin"]\n\turl = https://example.org/tree.git\n')
    run(server, tree)
    copied = clone(tree, tmp_path / place)
    if place != "tree/inside":
        with pytest.raises(Invalid, match="--worktree") as caught:
            run(server, copied)
        assert caught.value.code == "source_conflict"
    tally = run(server, copied, worktree=True)
    assert (counts(tally), tally.shared, list(server.sources)) == ((3, 0, 0, 0), {"tree": 3}, ["tree", name])
    # From then on it has its name.
    assert counts(run(server, copied)) == (0, 3, 0, 0)
    assert counts(run(server, copied / "a.py", worktree=True)) == (0, 1, 0, 0)


def test_a_work_tree_without_git_and_a_linked_one_are_named_after_their_directories(tree, linked, tmp_path):
    server = FakeIndex()
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "a.py").write_text("text of a.py\n")
    run(server, linked, tmp_path / "plain", worktree=True)
    assert sorted(server.sources) == ["plain", "tree@fix"]
    run(server, tree, worktree=True, source="named")
    assert "named" in server.sources


def run_registered(server, tree):
    tally = IndexStats()
    order = IndexOptions((tree,), "default", force=True, registered_only=True)
    asyncio.run(IndexRun(server, Settings(), order, tally, FakeDisplay()).run())
    return tally


def test_where_only_registered_sources_may_be_indexed_others_are_refused_before_anything_is_sent(tree):
    server = FakeIndex()
    with pytest.raises(Invalid) as raised:
        run_registered(server, tree)
    assert (raised.value.code, server.requests, server.sources) == ("root_not_allowed", [], {})
    run(server, tree)
    assert counts(run_registered(server, tree)) == (0, 3, 0, 0)


def test_a_link_in_the_place_of_a_registered_root_is_not_followed(tree, tmp_path):
    server = FakeIndex()
    run(server, tree)
    sent = len(server.requests)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "a.py").write_text("a secret\n")
    tree.rename(tmp_path / "before")
    tree.symlink_to(tmp_path / "secret")
    with pytest.raises(Invalid) as raised:
        run_registered(server, tree)
    assert (raised.value.code, len(server.requests), set(server.sources)) == ("root_not_allowed", sent, {"tree"})
