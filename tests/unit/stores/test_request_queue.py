"""What waits at the store process: its order, its bounds, what is dropped."""

import time
from typing import get_args

from penstock.ranking.retrieval import RetrievalQuery
from penstock.stores.backends.edge import ipc
from penstock.stores.backends.edge.request_queue import ROUND_READS_MAX, WAITING_MAX, RequestQueue
from penstock.stores.commands import (
    CountDocuments,
    CreateCollection,
    DescribeCollection,
    FetchPayloads,
    FetchPoints,
    FetchTokenVectors,
    GetDocuments,
    ListCollections,
    ListDocuments,
    ListPending,
    ListSources,
    Retrieve,
    ScrollPoints,
    SearchBatch,
    TrimDocument,
)
from penstock.stores.data_model import CollectionInfo


def find(number, collection="c", expires_at_s=None):
    return ipc.StoreRequest(number, GetDocuments(collection, ["a"]), expires_at_s)


def trim(number, collection="c", expires_at_s=None):
    return ipc.StoreRequest(number, TrimDocument(collection, "a", 1), expires_at_s)


def intake(*requests):
    made = RequestQueue()
    made.feed(b"".join(map(ipc.encode_frame, requests)))
    return made


def nothing(_):
    return False


def numbers(requests):
    return [request.number for request in requests]


def drained(made, held=nothing):
    taken = []
    while (request := made.take_write(held)) is not None:
        taken.append(request.number)
    return taken


def test_reads_are_taken_together_past_the_writes_that_wait():
    made = intake(find(1), trim(2), find(3), trim(4))
    assert numbers(made.take_reads()) == [1, 3]
    assert made.take_write(nothing).number == 2
    assert made.take_write(nothing).number == 4
    assert made.take_write(nothing) is None
    assert len(made) == 0


def test_frames_are_put_together_from_whatever_pieces_arrive():
    made = RequestQueue()
    for byte in ipc.encode_frame(find(1)) + ipc.encode_frame(find(2)):
        made.feed(bytes([byte]))
    assert numbers(made.take_reads()) == [1, 2]


def test_a_round_of_reads_is_bounded():
    made = intake(*(find(n) for n in range(ROUND_READS_MAX + 3)))
    assert [len(made.take_reads()), len(made.take_reads()), len(made.take_reads())] == [ROUND_READS_MAX, 3, 0]


def test_no_more_than_so_many_wait_here_and_none_is_lost():
    made = intake(*(find(n) for n in range(WAITING_MAX + 100)))
    assert (made.full, len(made)) == (True, WAITING_MAX)
    seen = []
    while taken := made.take_reads():
        seen += numbers(taken)
    assert seen == list(range(WAITING_MAX + 100))


def test_who_has_given_up_is_not_worked_for():
    past, future = time.monotonic() - 1, time.monotonic() + 60
    made = intake(find(1, expires_at_s=past), find(2, expires_at_s=future), trim(3, expires_at_s=past), trim(4))
    assert numbers(made.take_reads()) == [2]
    assert drained(made) == [4]


def test_writes_wait_for_their_own_collection_only_and_keep_their_order():
    create = ipc.StoreRequest(4, CreateCollection(CollectionInfo("e", 2, "m")))
    made = intake(trim(1, "c"), trim(2, "d"), trim(3, "c"), create)
    assert made.has_work(nothing)
    assert drained(made, lambda name: name == "c") == [2, 4]
    assert not made.has_work(lambda name: name == "c")
    assert drained(made) == [1, 3]


def test_the_end_waits_for_everything_before_it():
    made = intake(trim(1), ipc.StoreRequest(2, ipc.CloseStore()))
    assert made.take_write(lambda _: True) is None
    assert not made.has_work(lambda _: True)
    assert drained(made) == [1, 2]


def test_commands_that_change_something_are_writes():
    writes = {command for command in get_args(ipc.AnyCommand) if command.writes}
    reads = {ListCollections, DescribeCollection, Retrieve, SearchBatch, FetchTokenVectors, FetchPayloads}
    reads |= {ListDocuments, ListPending, GetDocuments, ScrollPoints, CountDocuments, FetchPoints, ListSources}
    reads |= {ipc.Ping, ipc.ShrinkCache}
    assert set(get_args(ipc.AnyCommand)) - writes == reads


def test_a_round_takes_one_large_search_and_that_last() -> None:
    waiting = intake(*(ipc.StoreRequest(number, searching(limit)) for number, limit in enumerate([1000, 10, 500, 10])))
    assert len(waiting) == 4
    rounds = []
    while waiting.has_work(nothing):
        rounds.append(numbers(waiting.take_reads()))
    assert rounds == [[1, 3, 0], [2]]


def searching(limit: int) -> Retrieve:
    return Retrieve("c", RetrievalQuery(limit, 64), ())
