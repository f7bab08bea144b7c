"""Both public clients against the real server, and the examples of their page."""

import asyncio
import contextlib
import io
import re
from pathlib import Path

import pytest

from penstock.client import AsyncClient, Client, Expired, Invalid, NewDocument, NotReachable, UploadSettings, calls
from tests.e2e.conftest import Server

TEXT = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
NOTES = [NewDocument(f"note {n}", f"A note about the number {n}.", metadata={"n": n}) for n in range(3)]


def ask_all(url: str) -> None:
    """Call every method of the blocking client once."""
    with Client(url) as client:
        assert client.create_collection("c").name == "c"
        report = client.index_documents(NOTES, "c")
        assert (report.indexed, [one.status for one in report.documents]) == (3, ["indexed"] * 3)
        answer = client.search("number 2", "c", limit=1, filter={"metadata.n": {"gte": 1}}, explain=True)
        assert answer.hits[0].id == "note 2"
        assert answer.hits[0].metadata == {"n": 2}
        assert "dense" in answer.hits[0].explain
        whole = client.search("a note", "c", highlights=True, facets=["metadata.n"], group="document")
        assert [one.id for one in client.iter_search("a note", "c", limit=1)] == [one.id for one in whole.hits]
        assert {one.text[slice(*one.highlights[0])] for one in whole.hits} == {"note"}
        assert {(one.value, one.count) for one in whole.facets[0].values} == {(0, 1), (1, 1), (2, 1)}
        document = client.get_document("note 2", "c", limit=1)
        assert (document.chunks[0].text, document.metadata, document.next) == (NOTES[2].text, {"n": 2}, None)
        alike = client.search(None, "c", like={"id": "note 2"})
        assert {one.id for one in alike.hits} == {"note 0", "note 1"}
        client.create_collection("d")
        both = client.search("number 2", ["c", "d"])
        assert {one.collection for one in both.hits} == {"c"}
        assert client.delete_collection("d") == 1
        assert client.list_documents("c", limit=2).next
        assert {one.id for one in client.iter_documents("c")} == {one.id for one in NOTES}
        assert client.get_collection("c").documents == 3
        assert [one.name for one in client.list_collections()] == ["c"]
        assert client.embed(["a"], "query").dim == len(client.embed(["a"]).embeddings[0])
        assert client.sparse(["a number"]).vectors[0].indices
        assert client.rerank("number", ["bread", "a number"]).results[0].index == 1
        made = client.make_snapshot()
        assert made.collections == ["c"]
        assert [one.name for one in client.list_snapshots()] == [made.name]
        assert client.restore_snapshot(made.name, force=True)[0].documents == 3
        assert client.delete_snapshot(made.name) == 1
        ask_for_tasks(client)
        assert client.delete_documents("c", ids=["note 0", "none"]) == 1
        assert client.status().collections[0].documents == 2
        assert isinstance(client.alerts(), list)
        with pytest.raises(Invalid, match="limit") as refused:
            client.search("x", "c", limit=0)
        assert (refused.value.status, refused.value.field, bool(refused.value.request_id)) == (422, "limit", True)
        with pytest.raises((Expired, NotReachable)):
            client.with_options(timeout_s=0.001).embed(["text " * 200] * 200)


def ask_for_tasks(client: Client) -> None:
    """Submit, wait, list and cancel; upload in bulk, and once more."""
    told = []
    task = client.submit(calls.index_documents(NOTES, "c"))
    ended = client.wait_for(task.id, told.append, timeout_s=60)
    assert (ended.status, ended.result["unchanged"], told[-1]) == ("succeeded", 3, ended)
    assert [one.id for one in client.list_tasks(status=["succeeded"], collection="c").tasks] == [task.id]
    assert client.cancel_task(task.id).cancelled is False
    client.create_collection("bulk")
    many = [NewDocument(f"d{n}", f"The text of number {n}.") for n in range(250)]
    done = client.upload(many, "bulk", UploadSettings(documents=40))
    assert (done.documents, done.searchable, done.failed) == (250, 250, 0)
    again = client.upload([*many, NewDocument("", "no id")], "bulk", UploadSettings(documents=40))
    assert (again.unchanged, again.failed, again.failures[0].code) == (250, 1, "invalid")
    with pytest.raises(Invalid) as refused:
        client.upload(many, "no-such")
    assert refused.value.code == "collection_not_found"
    client.delete_collection("bulk")


async def ask_some(url: str) -> None:
    """Call the client for asyncio, several calls at once."""
    async with AsyncClient(url) as client:
        await client.create_collection("e")
        done = await client.upload((NewDocument(f"d{n}", f"Number {n}.") for n in range(60)), "e")
        assert (done.documents, done.failed) == (60, 0)
        task = await client.submit(calls.renew_collection("e"))
        assert (await client.wait_for(task.id, timeout_s=30)).result == {"renewed": 0}
        await client.delete_collection("e")
        found = await asyncio.gather(*(client.search(f"number {n}", "c") for n in range(5)))
        assert all(len(one.hits) == 2 for one in found)
        assert {one.id async for one in client.iter_documents("c")} == {"note 1", "note 2"}
        assert await client.delete_collection("c") == 1
        with pytest.raises(Invalid) as refused:
            await client.get_collection("c")
        assert refused.value.code == "collection_not_found"


def test_both_clients_speak_to_the_server_and_the_examples_of_their_page_run(serve):
    server: Server = serve()
    ask_all(server.url)
    asyncio.run(ask_some(server.url))
    shown = []
    for example in EXAMPLES:
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(compile(example.replace("http://127.0.0.1:8080", server.url), "docs/client.md", "exec"), {})
        shown.append(output.getvalue())
    assert "decoder indexed None" in shown[0]
    assert "src/json/decoder.py:1-1" in shown[0]
    assert "[1, 1]\ndecoder 1" in shown[1]
    assert "1000 done" in shown[2]
    assert "succeeded {'name'" in shown[2]
    assert shown[3].startswith("collection_not_found")
    server.kill()
    with pytest.raises(NotReachable):
        Client(server.url).status()
