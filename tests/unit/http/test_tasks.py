"""Tasks over the API: submitted, listed, followed, cancelled; overload and restarts in between."""

import asyncio
import json

import pytest

from penstock.http.event_streams import CLIENT_STREAMS_MAX, KEEPALIVE_S, STREAM_S_MAX
from penstock.http.request_context import RequestState
from penstock.http.task_operations import may_see
from penstock.http.task_work import STALLED_S
from penstock.indexing.document_records import DocumentStatus, IndexOutcome
from penstock.kernel.access import ANYONE, Principal, Scope
from penstock.kernel.errors import Rejected, Unavailable
from penstock.kernel.settings import HttpSettings, TaskSettings
from penstock.stores.commands import CountDocuments
from penstock.tasks.queue import Task
from penstock.tasks.records import TaskKind, TaskRecord
from tests.clock import BEGIN_S, quiet, virtual
from tests.fakes.api import Api, Caller
from tests.fakes.task_spool import MemorySpool

DOCUMENTS = "/v1/collections/default/documents"
LATER = f"{DOCUMENTS}?wait=false"
NDJSON = {"content-type": "application/x-ndjson"}


def body(*ids, **more):
    return {"documents": [{"id": id, "text": f"text about {id}"} for id in ids or "ab"], **more}


async def started(**how):
    api = await Api(**how).with_collection()
    api.tasks.start()
    return api


async def submitted(api, *ids):
    answer = await api.ask("POST", LATER, body(*ids))
    assert answer.status == 202, answer.body
    return answer.json["id"]


async def shown(api, id):
    return (await api.ask("GET", f"/v1/tasks/{id}")).json


class Hung:
    """An index that lets documents go one by one.

    Attributes:
        errors: Errors of the next documents.
    """

    def __init__(self, api):
        self.turns = asyncio.Semaphore(0)
        self.errors = []
        self.contexts = []
        api.core.index = self

    async def run(self, _collection, documents, ctx, _wait):
        self.contexts.append(ctx)
        for one in documents:
            await self.turns.acquire()
            error = self.errors.pop(0) if self.errors else None
            status = DocumentStatus.FAILED if error is not None else DocumentStatus.INDEXED
            yield IndexOutcome(one.id, status, int(error is None), error)


# Submitted


@virtual
async def test_documents_are_accepted_and_indexed_afterwards():
    api = await started()
    answer = await api.ask("POST", LATER, body())
    told = answer.json
    assert (answer.status, answer.headers["location"]) == (202, f"/v1/tasks/{told['id']}")
    assert answer.headers["retry-after"] == "1"
    assert (told["kind"], told["collection"]) == ("index_documents", "default")
    assert (told["total"], told["ended_at"], "result" in told) == (2, None, False)
    await quiet()
    done = await shown(api, told["id"])
    assert (done["status"], done["done"], done["total"], done["error"]) == ("succeeded", 2, 2, None)
    result = {"indexed": 2, "searchable": 0, "unchanged": 0, "failed": 0, "chunks": 2, "failures": []}
    assert done["result"] == result
    assert (await api.ask("GET", DOCUMENTS)).json["documents"]


@virtual
async def test_the_body_says_whether_a_task_waits_for_vectors():
    api = await started()
    answer = await api.ask("POST", LATER, body(wait="words"))
    await quiet()
    assert (await shown(api, answer.json["id"]))["result"]["searchable"] == 2


@virtual
async def test_bad_lines_are_told_with_the_result():
    api = await started()
    lines = b'{"id": "a", "text": "t"}\nbroken\n'
    answer = await api.ask("POST", LATER, lines, NDJSON)
    await quiet()
    done = await shown(api, answer.json["id"])
    assert (done["status"], done["total"], done["result"]["failed"]) == ("succeeded", 2, 1)
    assert done["result"]["failures"][0]["line"] == 2


@pytest.mark.parametrize(
    ("path", "sent", "status", "code"),
    [
        (LATER, '{"documents": [', 400, "malformed"),
        (LATER, '{"documents": [{"id": ""}]}', 422, "invalid"),
        ("/v1/collections/other/documents?wait=false", '{"documents": []}', 404, "collection_not_found"),
        (f"{DOCUMENTS}?wait=never", '{"documents": []}', 422, "invalid"),
        ("/v1/collections/other/renew?wait=false", None, 404, "collection_not_found"),
        ("/v1/snapshots/other/restore?wait=false", None, 404, "snapshot_not_found"),
        ("/v1/snapshots/other/restore?wait=false", '{"force": 3}', 422, "invalid"),
    ],
)
@virtual
async def test_what_is_wrong_is_refused_at_once(path, sent, status, code):
    api = await started()
    answer = await api.ask("POST", path, sent)
    assert (answer.status, answer.json["code"]) == (status, code)
    assert api.core.spool.records == {}


@virtual
async def test_a_collection_of_another_model_takes_no_task():
    api = await started()
    from penstock.stores.data_model import CollectionInfo

    api.foreign["default"] = CollectionInfo("default", 8, "other")
    answer = await api.ask("POST", LATER, body())
    assert (answer.status, answer.json["code"]) == (409, "collection_conflict")


@virtual
async def test_snapshots_restores_and_renewals_are_tasks_too():
    api = await started()
    kinds = []
    for path, sent in (
        ("/v1/snapshots", None),
        ("/v1/snapshots/notes/restore", '{"force": true}'),
        ("/v1/collections/default/renew", None),
    ):
        answer = await api.ask("POST", f"{path}?wait=false", sent)
        await quiet()
        done = await shown(api, answer.json["id"])
        assert done["status"] == "succeeded", done
        kinds.append((done["kind"], sorted(done["result"])))
    assert kinds == [
        ("make_snapshot", ["bytes", "collections", "left_out", "made_at", "name", "reason"]),
        ("restore_snapshot", ["collections"]),
        ("renew_collection", ["renewed"]),
    ]


@virtual
async def test_waiting_as_before_makes_no_task():
    api = await started()
    assert (await api.ask("POST", "/v1/snapshots?wait=true")).status == 200
    assert (await api.ask("POST", f"{DOCUMENTS}?wait=words", body())).status == 200
    assert api.core.spool.records == {}


@virtual
async def test_a_full_disk_is_507_and_a_full_queue_503():
    api = await started(tasks=TaskSettings(waiting=4))
    api.core.spool.full = True
    answer = await api.ask("POST", LATER, body())
    assert (answer.status, answer.json["code"]) == (507, "disk_full")
    api.core.spool.full = False
    Hung(api)
    await submitted(api)
    await submitted(api)
    answer = await api.ask("POST", LATER, body())
    assert (answer.status, answer.json["code"]) == (429, "client_share")
    assert int(answer.headers["retry-after"]) >= 1
    for _ in range(2):
        other = await Caller(api.gate, address="10.0.0.1").ask("POST", LATER, body())
        assert other.status == 202
    answer = await Caller(api.gate, address="10.0.0.2").ask("POST", LATER, body())
    assert (answer.status, answer.json["code"]) == (503, "tasks_full")
    await api.tasks.close()


# The work


@virtual
async def test_a_task_is_bulk_work_of_its_client():
    api = await started()
    index = Hung(api)
    id = await submitted(api)
    await quiet()
    (ctx,) = index.contexts
    assert (ctx.client, ctx.criticality.name, ctx.request_id) == ("127.0.0.1", "BULK", id)
    await api.tasks.close()


@virtual
async def test_refused_documents_are_tried_again_and_the_others_are_not():
    api = await started()
    index = Hung(api)
    index.errors = [None, Rejected("full"), Unavailable("gone", dependency="store"), None]
    for _ in range(10):
        index.turns.release()
    id = await submitted(api, "a", "b", "c", "d")
    await quiet()
    assert ((await shown(api, id))["status"], (await shown(api, id))["done"]) == ("running", 2)
    await asyncio.sleep(2)
    done = await shown(api, id)
    assert (done["status"], done["result"]["indexed"]) == ("succeeded", 4)
    assert len(index.contexts) == 2


@virtual
async def test_a_task_that_gets_nowhere_fails_in_the_end():
    api = await started()
    index = Hung(api)
    index.errors = [Unavailable("gone", dependency="store") for _ in range(1000)]
    for _ in range(1000):
        index.turns.release()
    id = await submitted(api, "a")
    await asyncio.sleep(STALLED_S + 100)
    done = await shown(api, id)
    assert (done["status"], done["error"]["code"], done["result"]["failed"]) == ("failed", "unavailable", 1)
    assert len(index.contexts) < 100


@virtual
async def test_a_store_that_is_away_is_waited_for():
    api = await started()
    id = await submitted(api)
    run = api.core.store.run
    calls = []

    async def away(command, ctx):
        calls.append(command)
        if len(calls) < 3:
            raise Unavailable("the store does not answer", dependency="store")
        return await run(command, ctx)

    api.core.store.run = away
    await asyncio.sleep(10)
    assert (await shown(api, id))["status"] == "succeeded"


@virtual
async def test_when_all_documents_fail_the_task_has_failed():
    api = await started()
    index = Hung(api)
    from penstock.kernel.errors import Invalid

    index.errors = [Invalid("too odd", field="text"), Invalid("too odd", field="text")]
    index.turns.release()
    index.turns.release()
    id = await submitted(api)
    await quiet()
    done = await shown(api, id)
    assert (done["status"], done["error"]["detail"], done["result"]["failed"]) == ("failed", "too odd", 2)
    assert done["error"]["request_id"] == id


@virtual
async def test_a_collection_that_was_deleted_fails_its_tasks():
    api = await Api().with_collection()
    id = await submitted(api)
    await api.ask("DELETE", "/v1/collections/default")
    api.tasks.start()
    await quiet()
    done = await shown(api, id)
    assert (done["status"], done["error"]["code"]) == ("failed", "collection_not_found")


@virtual
async def test_a_restart_goes_on_where_the_last_acknowledged_document_was():
    spool = MemorySpool()
    first = await started(spool=spool)
    index = Hung(first)
    index.turns.release()
    id = await submitted(first, "a", "b", "c")
    await quiet()
    await first.tasks.close()
    again = await Api(spool=spool).with_collection()
    await again.tasks.load()
    assert (await shown(again, id))["status"] == "waiting"
    again.tasks.start()
    await quiet()
    assert (await shown(again, id))["status"] == "succeeded"
    assert await again.store.run(CountDocuments("default", ()), index.contexts[0]) == 3


# Listed and shown


@virtual
async def test_tasks_are_listed_by_pages_and_filters():
    api = await Api().with_collection()
    await api.with_collection("other")
    ids = [await submitted(api) for _ in range(5)]
    other = (await api.ask("POST", "/v1/collections/other/documents?wait=false", body())).json["id"]
    await api.ask("POST", f"/v1/tasks/{ids[0]}/cancel")

    async def listed(query):
        answer = (await api.ask("GET", f"/v1/tasks{query}")).json
        return [task["id"] for task in answer["tasks"]], answer["next"]

    assert await listed("") == ([other, *ids[::-1]], None)
    assert await listed("?limit=2") == ([other, ids[4]], ids[4])
    assert await listed(f"?limit=5&after={ids[4]}") == (ids[3::-1], None)
    assert await listed("?status=cancelled&status=failed") == ([ids[0]], None)
    assert await listed("?collection=other&kind=index_documents&status=waiting") == ([other], None)
    assert await listed("?kind=make_snapshot") == ([], None)


@pytest.mark.parametrize("query", ["status=ended", "kind=x", "after=x", "limit=0", "limit=1001", "page=2"])
@virtual
async def test_bad_filters_are_refused(query):
    answer = await Api().ask("GET", f"/v1/tasks?{query}")
    assert (answer.status, answer.json["code"]) == (422, "invalid")


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", "/cancel"), ("GET", "/events")])
@pytest.mark.parametrize("id", ["0" * 20, "nonsense", "%2e%2e", "a%0ab"])
@virtual
async def test_an_unknown_task_is_404(method, path, id):
    answer = await Api().ask(method, f"/v1/tasks/{id}{path}")
    assert (answer.status, answer.json["code"]) == (404, "task_not_found")


# Cancelled


@virtual
async def test_a_task_is_cancelled_once_and_a_second_time_is_told_so():
    api = await started()
    index = Hung(api)
    id = await submitted(api)
    index.turns.release()
    await quiet()
    first = await api.ask("POST", f"/v1/tasks/{id}/cancel")
    assert (first.status, first.json["cancelled"], first.json["task"]["status"]) == (200, True, "cancelled")
    again = await api.ask("POST", f"/v1/tasks/{id}/cancel")
    assert (again.status, again.json["cancelled"], again.json["task"]["status"]) == (200, False, "cancelled")
    assert "had ended before, as cancelled" in again.json["detail"]
    assert (await shown(api, id))["done"] == 1


# Followed


def events(sent):
    text = b"".join(message.get("body", b"") for message in sent).decode()
    return [json.loads(part.partition("data: ")[2]) for part in text.split("\n\n") if part.startswith("event: task")]


@virtual
async def test_a_task_is_followed_to_its_end():
    api = await started()
    index = Hung(api)
    id = await submitted(api, "a", "b", "c")
    caller = Caller(api.gate)
    following = asyncio.create_task(caller.call("GET", f"/v1/tasks/{id}/events"))
    for _ in range(3):
        await asyncio.sleep(1)
        index.turns.release()
    await following
    answer = caller.answer()
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert "content-length" not in answer.headers
    assert answer.body.startswith(b"retry: 2000\n\n")
    told = [(one["status"], one["done"]) for one in events(caller.sent)]
    assert told[:3] == [("running", 0), ("running", 1), ("running", 2)]
    assert told[-1] == ("succeeded", 3)


@virtual
async def test_a_task_that_has_ended_is_told_once():
    api = await started()
    id = await submitted(api)
    await quiet()
    caller = Caller(api.gate)
    await caller.call("GET", f"/v1/tasks/{id}/events")
    assert [one["status"] for one in events(caller.sent)] == ["succeeded"]
    head = Caller(api.gate)
    await head.call("HEAD", f"/v1/tasks/{id}/events")
    assert head.answer().body == b""


@virtual
async def test_a_stream_outlives_the_write_timeout_by_comments_and_ends_by_itself():
    api = await started(http=HttpSettings(write_timeout=12))
    Hung(api)
    id = await submitted(api)
    caller = Caller(api.gate)
    await caller.call("GET", f"/v1/tasks/{id}/events")
    assert asyncio.get_running_loop().time() == pytest.approx(BEGIN_S + STREAM_S_MAX, abs=KEEPALIVE_S)
    assert caller.answer().body.count(b": nothing new\n\n") >= STREAM_S_MAX / KEEPALIVE_S
    await api.tasks.close()


@virtual
async def test_a_stream_keeps_a_deadline():
    api = await started()
    Hung(api)
    id = await submitted(api)
    caller = Caller(api.gate)
    await caller.call("GET", f"/v1/tasks/{id}/events", headers={"x-request-timeout-ms": "3000"})
    assert asyncio.get_running_loop().time() == pytest.approx(BEGIN_S + 3, abs=0.5) or caller.answer().body
    await api.tasks.close()


@virtual
async def test_a_follower_that_hangs_up_or_never_reads_leaves_nothing():
    api = await started()
    Hung(api)
    id = await submitted(api)
    gone, deaf = Caller(api.gate), Caller(api.gate, reads=False)
    following = [asyncio.create_task(one.call("GET", f"/v1/tasks/{id}/events")) for one in (gone, deaf)]
    await asyncio.sleep(5)
    assert api.tasks.watchers == 1  # the deaf one has not even taken the head
    gone.gone.set()
    await asyncio.sleep(1)
    assert api.tasks.watchers == 0
    deaf.gone.set()
    await asyncio.gather(*following)
    assert (len(deaf.sent), api.gate.traffic.in_flight) == (1, 0)
    await api.tasks.close()


@pytest.mark.parametrize("reads_head", [True, False])
@virtual
async def test_a_follower_that_stops_reading_is_cut_off_in_the_write_timeout(reads_head):
    api = await started()
    index = Hung(api)
    id = await submitted(api, *(f"d{number}" for number in range(100)))
    caller = Caller(api.gate, reads=reads_head)
    following = asyncio.create_task(caller.call("GET", f"/v1/tasks/{id}/events"))
    await asyncio.sleep(0.1)
    caller.reads = False
    for _ in range(50):
        await asyncio.sleep(1)
        index.turns.release()
    assert (following.done(), api.gate.traffic.cut_off, api.tasks.watchers) == (True, 1, 0)
    assert len(caller.sent) <= 4
    await api.tasks.close()


@virtual
async def test_streams_end_when_the_server_stops():
    api = await started()
    Hung(api)
    id = await submitted(api)
    caller = Caller(api.gate)
    following = asyncio.create_task(caller.call("GET", f"/v1/tasks/{id}/events"))
    await asyncio.sleep(2)
    api.tasks.stop()
    await following
    assert len(events(caller.sent)) == 2
    assert await api.gate.wait_drained(1)
    await api.tasks.close()


@virtual
async def test_a_client_has_so_many_streams():
    api = await started()
    Hung(api)
    id = await submitted(api)
    callers = [Caller(api.gate) for _ in range(CLIENT_STREAMS_MAX)]
    following = [asyncio.create_task(one.call("GET", f"/v1/tasks/{id}/events")) for one in callers]
    await asyncio.sleep(1)
    answer = await api.ask("GET", f"/v1/tasks/{id}/events")
    assert (answer.status, answer.json["code"]) == (429, "overloaded")
    api.tasks.stop()
    await asyncio.gather(*following)
    await api.tasks.close()


# Whose they are


@pytest.mark.parametrize(
    ("client", "principal", "seen"),
    [
        ("key:one", ANYONE, True),
        ("key:one", Principal("one", scope=Scope.WRITE), True),
        ("key:two", Principal("two", scope=Scope.WRITE), False),
        ("key:two", Principal("two", scope=Scope.ADMIN), True),
        ("key:two", Principal("two", scope=Scope.ADMIN, collections=("team-*",)), False),
        ("key:one", Principal("one", scope=Scope.WRITE, collections=("def*",)), True),
        ("key:one", Principal("one", scope=Scope.WRITE, collections=("team-*",)), False),
    ],
)
def test_a_key_sees_its_own_tasks_and_an_administrator_those_of_its_collections(client, principal, seen):
    task = Task(TaskRecord("0" * 20, TaskKind.INDEX_DOCUMENTS, "key:one", "default"))
    assert may_see(RequestState(client, "r", "", 0.0, 0.0, principal=principal), task) is seen
