"""What a watcher does when it cannot watch, and what of the changes it hands on."""

import asyncio
import os
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import watchfiles

from penstock.client import RootDirectory, Source
from penstock.indexing.sources import watcher as watcher_module
from penstock.indexing.sources.source_watches import WatchState
from penstock.indexing.sources.watcher import CHANGES_MAX, SourceWatcher
from penstock.kernel.errors import Invalid, Rejected
from penstock.kernel.settings import Settings

ROOT = Path("/home/vendor/.git/tree")


class Host:
    """Surroundings that keep what they are told, and a server that lists what a test says."""

    data_dir = ROOT / ".data"
    registered_only = True

    def __init__(self):
        self.lines, self.states, self.refused = [], [], ""
        self.listed = [Source("tree", roots=[RootDirectory("h", str(ROOT), watch=True)])]
        self.trouble = None
        self.on_note = lambda: None

    @asynccontextmanager
    async def connect(self):
        if self.trouble is not None:
            raise self.trouble
        yield self

    async def list_sources(self, _collection):
        return self.listed

    def refusal(self, _root):
        return self.refused

    def is_kept(self, source, _root):
        return source.roots[0].watch

    def tell(self, text):
        self.lines.append(text)

    def note(self, name, state, detail=""):
        self.states.append((name, state, detail))
        self.on_note()


def watcher(root=ROOT):
    host = Host()
    return SourceWatcher(host, Settings(), "default", {"tree": root}), host


async def batches(one, roots):
    return [changes async for changes in one._changes(roots)]


def test_without_enough_watches_files_are_polled_and_it_is_said(monkeypatch):
    asked = []

    async def limited(*_roots, force_polling, **_):
        asked.append(force_polling)
        if not force_polling:
            raise OSError("OS file watch limit reached")
        yield {(watchfiles.Change.modified, f"{ROOT}/a.py")}
        raise FileNotFoundError(ROOT)

    monkeypatch.setattr(watchfiles, "awatch", limited)
    one, out = watcher()
    assert asyncio.run(batches(one, [ROOT])) == [{f"{ROOT}/a.py"}]
    assert asked == [False, True]
    assert ["fs.inotify.max_user_watches" in line for line in out.lines] == [True]


def test_what_cannot_even_be_polled_is_an_error(monkeypatch):
    async def broken(*_roots, **_):
        raise RuntimeError("no")
        yield

    monkeypatch.setattr(watchfiles, "awatch", broken)
    with pytest.raises(RuntimeError):
        asyncio.run(batches(watcher()[0], [ROOT]))


@pytest.mark.parametrize(
    ("path", "is_noise"),
    [
        ("a.py", False),
        (".git/index.lock", True),
        ("deep/node_modules/x/y.js", True),
        (".gitignore", False),
        ("vendor/own.py", False),
        (".data/collections/c.json", True),
        (".database/x", False),
    ],
)
def test_directories_of_much_noise_are_passed_over_below_the_root_alone(path, is_noise):
    assert watcher()[0]._is_noise(f"{ROOT}/{path}") is is_noise


def test_after_too_many_changes_anything_may_have_changed():
    one, _ = watcher()
    one._changed = set()
    one._note({f"/{number}" for number in range(CHANGES_MAX)})
    assert len(one._changed) == CHANGES_MAX
    one._note({"/more"})
    assert one._changed is None
    one._note({"/still"})
    assert one._changed is None


def test_a_directory_in_the_place_of_another_is_told_from_it(tmp_path):
    root = tmp_path / "tree"
    root.mkdir()
    one, _ = watcher(root)
    before = one._look()
    assert (list(before[0]), before[1]) == (["tree"], {})
    root.rename(tmp_path / "old")
    assert one._look() == ({}, {"tree": ""})
    root.mkdir()
    assert one._look() != before
    root.rmdir()
    root.write_text("a file")
    assert one._look() == ({}, {"tree": ""})


class Runs:
    """Index runs that a watcher began, in the place of real ones."""

    def __init__(self, monkeypatch):
        self.orders, self.trouble = [], []
        monkeypatch.setattr(watcher_module, "IndexRun", self._made)
        monkeypatch.setattr(watcher_module, "TICK_MS", 0)

    def _made(self, _api, _settings, order, stats, _display):
        self.orders.append(order)
        runs = self

        class Run:
            async def run(self):
                if runs.trouble:
                    raise runs.trouble.pop()
                stats.took_s = 0.5

        return Run()


def watching(monkeypatch, batches):
    """Let the kernel tell of these batches, and then of nothing until a source is gone."""

    async def awatch(*_roots, **_):
        for paths in batches:
            yield {(watchfiles.Change.modified, path) for path in paths}

    monkeypatch.setattr(watchfiles, "awatch", awatch)


async def until_forgotten(one, host, after):
    """Run a watcher; after so many runs its source is forgotten."""
    real = host.list_sources
    count = 0

    async def listing(collection):
        nonlocal count
        count += 1
        return await real(collection) if count <= after else []

    host.list_sources = listing
    await one.run()


def test_each_batch_is_a_run_over_what_has_changed(monkeypatch, tmp_path):
    runs = Runs(monkeypatch)
    one, host = watcher(tmp_path)
    watching(monkeypatch, [[], [f"{tmp_path}/a.py"], [f"{tmp_path}/b.py"], [f"{tmp_path}/c.py"]])
    asyncio.run(until_forgotten(one, host, 3))
    assert [order.changed for order in runs.orders] == [None, {f"{tmp_path}/a.py"}, {f"{tmp_path}/b.py"}]
    assert {(order.registered_only, order.paths) for order in runs.orders} == {(True, (tmp_path,))}
    assert [state for _, state, _ in host.states] == [WatchState.INDEXING, WatchState.WATCHING] * 3
    assert host.lines[-1] == "tree: forgotten, so not watched any more"


def test_what_has_changed_is_kept_while_the_server_refuses(monkeypatch, tmp_path):
    runs = Runs(monkeypatch)
    one, host = watcher(tmp_path)
    watching(monkeypatch, [[], [f"{tmp_path}/a.py"], [f"{tmp_path}/b.py"], [f"{tmp_path}/c.py"]])
    runs.trouble = [Rejected("full", code="topic_full")]
    asyncio.run(until_forgotten(one, host, 3))
    assert [order.changed for order in runs.orders] == [None, None, {f"{tmp_path}/b.py"}]
    assert (WatchState.INDEXING, "waiting for the server: full") in [said[1:] for said in host.states]


def test_a_root_that_may_not_be_indexed_is_left_alone_until_it_may(monkeypatch, tmp_path):
    runs = Runs(monkeypatch)
    one, host = watcher(tmp_path)
    host.refused = "a link has taken its place"
    host.on_note = lambda: setattr(host, "refused", "")
    watching(monkeypatch, [[], ["/more"]])
    asyncio.run(until_forgotten(one, host, 2))
    assert host.states[0] == ("tree", WatchState.FAILED, "a link has taken its place")
    assert [order.changed for order in runs.orders] == [None]


def test_a_root_that_is_gone_is_waited_for(monkeypatch, tmp_path):
    runs = Runs(monkeypatch)
    one, host = watcher(tmp_path / "tree")
    host.on_note = lambda: (tmp_path / "tree").mkdir(exist_ok=True)
    watching(monkeypatch, [[], ["/more"]])
    asyncio.run(until_forgotten(one, host, 2))
    assert host.states[0][1] == WatchState.WAITING
    assert [order.changed for order in runs.orders] == [None]


def test_a_watch_that_was_ended_elsewhere_ends(monkeypatch, tmp_path):
    runs = Runs(monkeypatch)
    one, host = watcher(tmp_path)
    host.listed = [Source("tree", roots=[RootDirectory("h", str(tmp_path))])]
    watching(monkeypatch, [[]])
    asyncio.run(one.run())
    assert runs.orders == []


def test_what_a_run_cannot_take_ends_the_watcher(monkeypatch, tmp_path):
    runs = Runs(monkeypatch)
    one, _ = watcher(tmp_path)
    watching(monkeypatch, [[]])
    runs.trouble = [Invalid("no", code="source_conflict")]
    with pytest.raises(Invalid):
        asyncio.run(one.run())


def test_directories_are_watched_one_by_one_without_links_and_noise(tmp_path):
    tree = tmp_path / "tree"
    for name in ("deep/down", "node_modules/x", ".git/objects", "deep/__pycache__", ".data/collections"):
        (tree / name).mkdir(parents=True)
    os.mkdir(os.fsencode(tree) + b"/\xff")  # noqa: PTH102 - no text
    (tree / "root").symlink_to("/")
    (tree / "deep" / "loop").symlink_to("..")
    (tree / "deep" / "new.py").write_text("new")
    (tree / "old.py").write_text("old")
    one, host = watcher(tree)
    host.data_dir = tree / ".data"
    survey = one._survey([tree], 0)
    assert survey.directories == {str(tree), f"{tree}/deep", f"{tree}/deep/down"}
    assert survey.changed == {f"{tree}/deep/new.py", f"{tree}/old.py"}
    assert one._survey([tree], (tree / "old.py").stat().st_ctime + 60).changed == set()


def test_a_new_directory_is_watched_and_what_changed_meanwhile_is_not_lost(monkeypatch, tmp_path):
    armed = []

    async def awatch(*directories, recursive, **_):
        armed.append((list(directories), recursive))
        if len(armed) == 1:
            # Behind the back of the watcher: one before anything is watched, one while it is indexed.
            (tmp_path / "early").mkdir()
            (tmp_path / "early" / "a.py").write_text("a")
            yield set()
        elif len(armed) == 2:
            yield set()
            (tmp_path / "late").mkdir()
            yield {(watchfiles.Change.added, f"{tmp_path}/late")}
        else:
            yield set()
            raise FileNotFoundError

    monkeypatch.setattr(watchfiles, "awatch", awatch)
    one, _ = watcher(tmp_path)

    async def told():
        seen = []
        async for changes in one._changes([tmp_path]):
            seen.append(changes)
            if len(armed) == 3:
                break
        return seen

    first, second, third, *_ = asyncio.run(told())
    assert {f"{tmp_path}/early", f"{tmp_path}/early/a.py"} <= first
    assert f"{tmp_path}/early/a.py" in second
    assert third == {f"{tmp_path}/late"}
    early, late = f"{tmp_path}/early", f"{tmp_path}/late"
    assert armed == [
        ([str(tmp_path)], False),
        ([str(tmp_path), early], False),
        ([str(tmp_path), early, late], False),
    ]
