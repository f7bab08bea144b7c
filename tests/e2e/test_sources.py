"""Sources as a person has them: trees that move, are forgotten, come from an earlier release, are not mounted."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.client import Client, Invalid, NewDocument
from tests.e2e.conftest import command, environment, penstock, penstock_json, start

DOOR = 'def open_{0}_door(key):\n    """Open the door of {0} with a key."""\n    return key\n'


@pytest.fixture
def projects(tmp_path: Path) -> Path:
    """Return a directory with two projects, each a repository with a file of the same path."""
    for name in ("alpha", "beta"):
        (tmp_path / "projects" / name / "src").mkdir(parents=True)
        subprocess.run(["git", "init", "-q", tmp_path / "projects" / name], check=True)
        (tmp_path / "projects" / name / "src" / "door.py").write_text(DOOR.format(name))
    return tmp_path / "projects"


@contextmanager
def serving(data_dir: Path) -> Iterator[Client]:
    server = start(data_dir)
    try:
        with Client(server.url) as client:
            yield client
    finally:
        server.terminate()


def found(data_dir: Path, *options: str) -> list[str]:
    """Return the ids that a search finds, sorted."""
    answer = penstock_json("search", "open the door with a key", "--data-dir", data_dir, *options)
    return sorted(hit["id"] for hit in answer["hits"])


def test_a_project_moves_is_renamed_narrowed_to_and_forgotten(projects, data_dir):
    at = ("--data-dir", data_dir)
    penstock_json("index", projects / "alpha", projects / "beta", *at)
    assert found(data_dir) == ["alpha:src/door.py", "beta:src/door.py"]
    assert found(data_dir, "--source", "beta") == ["beta:src/door.py"]

    renamed = (projects / "alpha").rename(projects / "alpha-renamed")
    report = penstock_json("index", renamed, *at)
    assert (report["indexed"], report["unchanged"], len(report["notes"])) == (0, 1, 1)
    shown = penstock("search", "open the door with a key", "--source", "alpha", *at, cwd=projects).stdout
    assert shown.startswith("alpha-renamed/src/door.py:1-3")

    # The directory around them brings both up to date.
    (projects / "beta" / "src" / "door.py").unlink()
    (projects / "beta" / "src" / "gate.py").write_text(DOOR.format("gate"))
    report = penstock_json("index", projects, *at)
    assert (report["indexed"], report["unchanged"], report["removed"]) == (1, 1, 1)

    listed = {one["name"]: one for one in penstock_json("sources", *at)["sources"]}
    assert {name: one["documents"] for name, one in listed.items()} == {"alpha": 1, "beta": 1}
    assert listed["alpha"]["roots"][0]["path"] == str(renamed)
    assert "alpha-renamed" in penstock("sources", *at).stdout

    assert penstock("forget", "alpha", *at).returncode == 2
    assert penstock_json("forget", "alpha", "--yes", *at)["deleted"] == 1
    assert found(data_dir) == ["beta:src/gate.py"]
    missing = penstock("forget", "alpha", "--yes", *at)
    assert (missing.returncode, "`penstock sources` lists sources" in missing.stderr) == (2, True)


def test_ids_of_an_earlier_release_become_those_of_sources_without_the_model(projects, data_dir):
    file = projects / "alpha" / "src" / "door.py"
    with serving(data_dir) as client:
        client.create_collection("default")
        text = file.read_text()
        client.index_documents([NewDocument(str(file), text, "src/door.py", "python")])
        report = penstock_json("index", projects / "alpha", "--data-dir", data_dir)
        assert (report["indexed"], report["chunks"]) == (1, 1)
        assert [(one.id, one.source) for one in client.iter_documents()] == [("alpha:src/door.py", "alpha")]
        topics = {one.name: one for one in client.status().topics}
        # The one text that the model was given is that of the first indexing.
        assert topics["ml.embed"].offered == 1
        assert client.search("open the door with a key").hits[0].id == "alpha:src/door.py"


def test_an_unmounted_disk_and_another_tree_of_the_name_lose_nothing(tmp_path, data_dir):
    at = ("--data-dir", data_dir)
    mount = tmp_path / "mnt"
    mount.mkdir()
    for number in range(5):
        (mount / f"f{number}.py").write_text(f"def f{number}(): return {number}\n")
    penstock_json("index", mount, *at)
    mounted = mount.rename(tmp_path / "disk")
    mount.mkdir()
    done = penstock("index", mount, *at)
    assert done.returncode == 1
    assert "--prune" in done.stderr
    (source,) = penstock_json("sources", *at)["sources"]
    assert (source["documents"], source["run"]["kept"]) == (5, 5)

    other = tmp_path / "other" / "mnt"
    other.mkdir(parents=True)
    (other / "x.py").write_text("x = 1\n")
    done = penstock("index", other, *at)
    assert (done.returncode, "another tree" in done.stderr) == (2, True)
    # The same tree, mounted elsewhere.
    (tmp_path / "media").mkdir()
    report = penstock_json("index", mounted.rename(tmp_path / "media" / "mnt"), *at)
    assert (report["unchanged"], report["indexed"]) == (5, 0)


def test_sources_are_in_snapshots_and_collections_are_deleted_by_name(projects, data_dir, tmp_path):
    at = ("--data-dir", data_dir)
    penstock_json("index", projects / "alpha", *at)
    before = penstock_json("sources", *at)
    penstock_json("snapshot", "--output", tmp_path / "all.snapshot", *at)
    assert penstock("collections", "delete", "default", *at).returncode == 2
    assert penstock_json("collections", "delete", "default", "--yes", *at)["documents"] == 1
    assert penstock_json("collections", "list", *at)["collections"] == []
    assert penstock_json("sources", *at)["sources"] == []
    penstock_json("restore", tmp_path / "all.snapshot", *at)
    assert penstock_json("sources", *at) == before


def test_two_runs_over_one_source_at_once_end_as_one(projects, data_dir):
    for number in range(20):
        (projects / "alpha" / f"f{number}.py").write_text(f"def f{number}(): return {number}\n")
    with serving(data_dir) as client:
        arguments = command("index", projects / "alpha", "--data-dir", data_dir)
        runs = [subprocess.Popen(arguments, env=environment()) for _ in range(2)]
        assert [run.wait(120) for run in runs] == [0, 0]
        assert len(list(client.iter_documents())) == 21
        (source,) = client.list_sources()
        assert (source.documents, source.run.failed) == (21, 0)


def git(tree: Path, *arguments: str | Path) -> None:
    identity = ("-c", "user.name=n", "-c", "user.email=n@example.org")
    subprocess.run(["git", "-C", tree, *identity, *arguments], check=True, capture_output=True)


def test_a_second_work_tree_costs_its_differences(projects, data_dir):
    at, main, linked = ("--data-dir", data_dir), projects / "alpha", projects / "fix"
    for number in range(8):
        (main / f"f{number}.py").write_text(DOOR.format(f"number{number}"))
    git(main, "add", ".")
    git(main, "commit", "-qm", "all")
    git(main, "worktree", "add", "-b", "fix", linked)
    (linked / "f0.py").write_text(DOOR.format("another"))
    with serving(data_dir) as client:
        penstock_json("index", main, *at)
        report = penstock_json("index", linked, *at)
        assert (report["indexed"], report["shared"], report["chunks"]) == (9, {"alpha": 8}, 9)
        # A branch that is merged is shared the other way round.
        git(linked, "commit", "-qam", "another")
        git(main, "merge", "-q", "fix")
        assert penstock_json("index", main, *at)["shared"] == {"alpha@fix": 1}
        # Vectors were wanted for the nine texts of the first run and for the one that differed, cached ones included.
        (cache,) = [one for one in client.status().caches if one.name == "embed"]
        assert cache.hits + cache.misses == 10

        assert found(data_dir, "--source", "alpha@fix", "--path-prefix", "src/") == ["alpha@fix:src/door.py"]
        # A hit of the linked tree is shown as its file.
        shown = penstock(
            "search", "open the door of another", "--source", "alpha@fix", "--limit", "1", *at, cwd=projects
        )
        assert shown.stdout.startswith("fix/f0.py:1-3")

        # Each has its own points: one can be forgotten without the other.
        assert penstock_json("forget", "alpha", "--yes", *at)["deleted"] == 9
        assert len(found(data_dir, "--source", "alpha@fix", "--limit", "20")) == 9
        assert penstock_json("index", linked, *at)["unchanged"] == 9


def test_a_second_clone_is_a_work_tree_if_it_is_said_to_be(projects, data_dir):
    at, clone = ("--data-dir", data_dir), projects / "second" / "alpha"
    git(projects / "alpha", "add", ".")
    git(projects / "alpha", "commit", "-qm", "all")
    git(projects, "clone", "-q", projects / "alpha", clone)
    penstock_json("index", projects / "alpha", *at)
    refused = penstock("index", clone, *at)
    assert (refused.returncode, "--worktree" in refused.stderr) == (2, True)
    done = penstock("index", clone, "--worktree", *at)
    assert "shared 1: 1 with alpha" in done.stdout
    assert [one["name"] for one in penstock_json("sources", *at)["sources"]] == ["alpha", "alpha@second"]


def test_a_document_shares_the_vectors_of_the_same_content_alone(data_dir):
    with serving(data_dir) as client:
        for collection in ("one", "other"):
            client.create_collection(collection)
        first = NewDocument("a", DOOR.format("a"), "a.py", "python")
        client.index_documents([first], "one")
        others = [
            NewDocument("b", first.text, "a.py", "python", same_as="a"),
            NewDocument("c", first.text, "c.py", "python", same_as="a"),
            NewDocument("d", first.text + "#", "a.py", "python", same_as="a"),
            NewDocument("e", first.text, "a.py", "python", metadata={"k": 1}, same_as="a"),
            NewDocument("f", first.text, "a.py", "python", same_as="f"),
            NewDocument("g", first.text, "a.py", "python", same_as="absent"),
        ]
        outcomes = client.index_documents(others, "one").documents
        assert {one.status for one in outcomes} == {"indexed"}
        assert [one.same_as for one in outcomes] == ["a", "", "", "", "", ""]
        (elsewhere,) = client.index_documents(others[:1], "other").documents
        assert (elsewhere.status, elsewhere.same_as) == ("indexed", "")
        too_long = NewDocument("h", "x", same_as="x" * 4097)
        with pytest.raises(Invalid, match="same_as"):
            client.index_documents([too_long], "one")
