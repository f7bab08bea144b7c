"""The process that watches a server's sources: what it starts, ends and tries again, and what it lets be indexed."""

import asyncio
from pathlib import Path

import pytest

from penstock.client import RootDirectory, Source
from penstock.indexing.sources import process
from penstock.indexing.sources.process import RETRY_S, SourceService
from penstock.indexing.sources.source_watches import WatchedSource, WatchState
from penstock.indexing.sources.watch_messages import OrderApplied, WatchNoted, WatchOrder, WatchStart
from penstock.kernel.errors import Invalid
from tests.clock import virtual


class Watchers:
    """Watchers that note who they are, in the place of real ones."""

    def __init__(self, monkeypatch):
        self.running, self.begun, self.errors = [], [], []
        monkeypatch.setattr(process, "SourceWatcher", self._made)

    def _made(self, host, _settings, collection, roots):
        outer = self

        class Watcher:
            async def run(self):
                outer.begun.append((collection, dict(roots)))
                outer.running.append(collection)
                try:
                    if outer.errors:
                        raise outer.errors.pop(0)
                    await asyncio.Event().wait()
                finally:
                    outer.running.remove(collection)

        self.host = host
        return Watcher()


@pytest.fixture
def srv(tmp_path: Path) -> Path:
    """Return a directory below which may be indexed, with a tree."""
    (tmp_path / "srv" / "tree").mkdir(parents=True)
    return tmp_path / "srv"


@pytest.fixture
def service(srv: Path) -> SourceService:
    start = WatchStart("http://x", "key", "", str(srv), str(srv / "data"), "here", 1000, 2000, 30)
    reports: list[object] = []
    made = SourceService(start, None, reports.append)
    made.reports = reports
    return made


def order(*sources: tuple[str, str, str]) -> WatchOrder:
    return WatchOrder([WatchedSource(*one) for one in sources])


@virtual
async def test_only_collections_whose_sources_have_changed_begin_again(monkeypatch, service):
    watchers = Watchers(monkeypatch)
    await service.apply(order(("a", "one", "/srv/1"), ("a", "two", "/srv/2"), ("b", "one", "/srv/1")))
    await asyncio.sleep(1)
    assert watchers.begun == [("a", {"one": Path("/srv/1"), "two": Path("/srv/2")}), ("b", {"one": Path("/srv/1")})]
    await service.apply(order(("a", "one", "/srv/1"), ("b", "one", "/srv/1")))
    await asyncio.sleep(1)
    assert watchers.begun[2:] == [("a", {"one": Path("/srv/1")})]
    await service.apply(order(("b", "one", "/srv/1")))
    assert watchers.running == ["b"]
    await service.close()
    assert watchers.running == []
    assert [one for one in service.reports if isinstance(one, OrderApplied)] == [OrderApplied()] * 4


@virtual
async def test_what_cannot_be_indexed_is_told_and_tried_again(monkeypatch, service):
    watchers = Watchers(monkeypatch)
    watchers.errors = [Invalid("no", code="source_conflict"), RuntimeError("broken")]
    await service.apply(order(("a", "one", "/srv/1")))
    await asyncio.sleep(1 + 2 * RETRY_S)
    assert len(watchers.begun) == 3
    noted = [one.watch for one in service.reports if isinstance(one, WatchNoted)]
    assert [(one.state, one.detail) for one in noted] == [
        (WatchState.FAILED, "no"),
        (WatchState.FAILED, "RuntimeError: broken"),
    ]
    await service.close()


@virtual
async def test_a_collection_that_is_gone_is_left_until_it_is_asked_for_again(monkeypatch, service):
    watchers = Watchers(monkeypatch)
    watchers.errors = [Invalid("gone", code="collection_not_found")]
    await service.apply(order(("a", "one", "/srv/1")))
    await asyncio.sleep(10 * RETRY_S)
    assert (len(watchers.begun), watchers.running) == (1, [])
    await service.apply(order(("a", "one", "/srv/1")))
    await asyncio.sleep(1)
    assert watchers.running == ["a"]
    await service.close()


@virtual
async def test_one_run_goes_on_at_a_time(monkeypatch, service):
    watchers = Watchers(monkeypatch)
    await service.apply(order(("a", "one", "/srv/1")))
    await asyncio.sleep(1)
    async with watchers.host.connect():
        assert service.turn.locked()
    assert not service.turn.locked()
    await service.close()


def test_a_root_is_refused_once_a_link_has_taken_its_place(srv, service):
    host = process._Collection("default", service)
    tree = srv / "tree"
    assert host.refusal(tree) == ""
    assert host.refusal(srv / "absent") == ""
    tree.rename(srv / "before")
    tree.symlink_to(srv / "before")
    assert "a link has taken its place" in host.refusal(tree)
    tree.unlink()
    tree.symlink_to(srv.parent)
    assert "INDEX_ROOTS" in host.refusal(tree)


def test_a_source_is_kept_while_its_record_names_this_host_and_root(service):
    host = process._Collection("default", service)
    for root, is_kept in (
        (RootDirectory("here", "/srv/1", watch=True), True),
        (RootDirectory("here", "/srv/1"), False),
        (RootDirectory("there", "/srv/1", watch=True), False),
        (RootDirectory("here", "/srv/2", watch=True), False),
    ):
        assert host.is_kept(Source("one", roots=[root]), Path("/srv/1")) is is_kept


def test_runs_have_the_limits_of_the_server(service):
    settings = service.start.settings
    assert (settings.index.max_file, settings.http.max_body, settings.http.max_batch) == (1000, 2000, 30)
