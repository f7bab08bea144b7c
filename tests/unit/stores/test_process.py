"""The store process's rounds, with a shelf that does as it is told."""

import errno

import msgspec
import numpy as np
import pytest

from penstock.kernel.context import new_id
from penstock.kernel.errors import Invalid, Unavailable
from penstock.ranking.retrieval import ScoredPoint
from penstock.stores.backends.edge import ipc
from penstock.stores.backends.edge.command_handlers import batch_reads, handle_batch, handle_request
from penstock.stores.backends.edge.engine import EnginePanicked, _translate_errors
from penstock.stores.commands import DeleteDocuments, GetDocuments, SearchBatch
from penstock.stores.data_model import ArmQuery
from tests.fakes.memory_store import sparse, unit


class Shard:
    def __init__(self, log, error=None):
        self.log = log
        self.error = error

    def search_batch(self, searches):
        self.log.append(("search", [s.limit for s in searches]))
        if self.error is not None and any(s.limit == 0 for s in searches):
            raise self.error
        return [[ScoredPoint("p", float(s.limit))] for s in searches]

    def get_documents(self, documents):
        self.log.append(("find", documents))
        if self.error is not None:
            raise self.error
        return []


class Shelf:
    def __init__(self, error=None):
        self.panicked = False
        self.log = []
        self._shard = Shard(self.log, error)

    def shard(self, name):
        if name != "c":
            raise Invalid("no such collection", field="collection", code="collection_not_found")
        return self._shard

    def note_error(self, _name, error):
        self.panicked |= isinstance(error, EnginePanicked)
        return error


def search(number, limit=1, collection="c", expires_at_s=None):
    return ipc.StoreRequest(number, SearchBatch(collection, [sought(limit)]), expires_at_s)


def sought(limit):
    return ArmQuery(np.empty(0, "f4"), limit)


def find(number, collection="c"):
    return ipc.StoreRequest(number, GetDocuments(collection, ["a"]))


def replies(frames):
    found = {}
    for frame in frames:
        reply = msgspec.msgpack.decode(frame[ipc.LENGTH_HEADER.size :], type=ipc.StoreReply)
        found[reply.number] = reply.error.code if reply.error else msgspec.msgpack.decode(reply.body)
    return found


def answers(shelf, *requests):
    return replies(frame for batch in batch_reads(requests) for frame in handle_batch(shelf, batch))


def test_all_searches_of_a_collection_go_as_one_batch():
    shelf = Shelf()
    found = answers(shelf, search(1, 5), search(2, 6), find(3), search(4, 7))
    assert shelf.log == [("search", [5, 6, 7]), ("find", ["a"])]
    assert list(found) == [1, 2, 4, 3]
    assert found[2] == [[["p", 6.0]]]


def test_several_queries_of_one_request_join_the_batch_and_come_back_together():
    shelf = Shelf()
    several = ipc.StoreRequest(2, SearchBatch("c", [sought(6), sought(7)]))
    found = answers(shelf, search(1, 5), several, search(3, 8))
    assert shelf.log == [("search", [5, 6, 7, 8])]
    assert found == {1: [[["p", 5.0]]], 2: [[["p", 6.0]], [["p", 7.0]]], 3: [[["p", 8.0]]]}


def test_searches_of_two_collections_are_no_batch():
    shelf = Shelf()
    assert answers(shelf, search(1), search(2, collection="d"))[2] == "collection_not_found"
    assert shelf.log == [("search", [1])]


def test_a_bad_query_spoils_its_own_answer_only():
    found = answers(Shelf(Invalid("bad", code="bad")), search(1, 1), search(2, 0), search(3, 3))
    assert found[2] == "bad"
    assert found[1] == [[["p", 1.0]]]
    assert found[3] == [[["p", 3.0]]]


def test_an_unexpected_error_is_told_without_its_innards(caplog):
    frames = [handle_request(Shelf(KeyError("secret")), find(1))]
    assert replies(frames) == {1: "internal"}
    assert b"secret" not in frames[0]
    assert "secret" in caplog.text


def test_a_full_disk_has_its_code():
    assert replies([handle_request(Shelf(OSError(errno.ENOSPC, "full")), find(1))]) == {1: "disk_full"}


def test_a_panic_is_answered_and_ends_the_process():
    shelf = Shelf(EnginePanicked("boom", code="store_failed"))
    assert replies([handle_request(shelf, find(1))]) == {1: "store_failed"}
    assert shelf.panicked


class PanicException(BaseException):
    """Named as the binding's own, which cannot be imported."""


@pytest.mark.parametrize(
    ("raised", "expected", "code"),
    [
        (RuntimeError("Wal error: WouldBlock"), Unavailable, "store_locked"),
        (RuntimeError("No space left on device"), Unavailable, "disk_full"),
        (PanicException("poisoned"), EnginePanicked, "store_failed"),
        (Invalid("ours", code="mine"), Invalid, "mine"),
    ],
)
def test_the_engines_errors_become_ours(raised, expected, code):
    with pytest.raises(expected) as caught, _translate_errors():
        raise raised
    assert caught.value.code == code


def test_an_interrupt_is_not_translated():
    with pytest.raises(KeyboardInterrupt), _translate_errors():
        raise KeyboardInterrupt


def test_both_kinds_of_vectors_survive_the_wire():
    sent = SearchBatch("c", [ArmQuery(unit(1, 0), 1), ArmQuery(sparse(t1=0.5), 2, among=["p"])])
    dense, terms = ipc.decoder(SearchBatch).decode(ipc.encode(sent)).queries
    assert (dense.vector.dtype, dense.vector.tolist()) == (np.float32, [1.0, 0.0])
    assert terms.vector.indices.tolist() == sent.queries[1].vector.indices.tolist()
    assert (terms.vector.values.tolist(), terms.among) == ([0.5], ["p"])


def test_a_record_survives_the_wire():
    request = ipc.StoreRequest(7, DeleteDocuments(new_id(), ()), 1.5)
    assert msgspec.msgpack.decode(ipc.encode_frame(request)[ipc.LENGTH_HEADER.size :], type=ipc.StoreRequest) == request
