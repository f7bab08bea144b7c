"""What a watcher does when it cannot watch, and what of the changes it hands on."""

import asyncio
import io
from pathlib import Path

import pytest
import watchfiles
from rich.console import Console

from penstock.cli.watch import CHANGES_MAX, SourceWatcher

ROOT = Path("/home/vendor/.git/tree")


def watcher(root=ROOT):
    out = io.StringIO()
    return SourceWatcher(None, "default", {"tree": root}, Console(file=out, soft_wrap=True)), out


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
    assert "fs.inotify.max_user_watches" in out.getvalue()
    assert out.getvalue().count("watch limit") == 1


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
    before = one._there()
    root.rename(tmp_path / "old")
    assert one._there() == {}
    root.mkdir()
    assert one._there() != before
    root.rmdir()
    root.write_text("a file")
    assert one._there() == {}
