"""Uploads: batches, refusals, what fails, and both clients on a server of fakes."""

import asyncio

import msgspec
import pytest

from penstock.client import (
    AsyncClient,
    Client,
    Invalid,
    NewDocument,
    NotReachable,
    Rejected,
    UploadFailure,
    UploadSettings,
)
from penstock.client.records import IndexedDocument, IndexReport, Problem
from penstock.client.uploads import FAILURES_MAX, Upload, UploadBatch


def documents(count, size=10):
    return [NewDocument(f"d{number}", "x" * size) for number in range(count)]


def report(batch, **errors):
    """Return the answer to a batch, with errors by id."""
    each = [
        IndexedDocument(id, "failed" if id in errors else "searchable", 1, error=errors.get(id)) for id in batch.ids
    ]
    return IndexReport(each)


def run(upload, answer, now_s=0.0):
    """Drive an upload alone; return what was sent and how long was waited in all."""
    sent, waited_s = [], 0.0
    while not upload.done:
        step = upload.next(now_s + waited_s)
        if isinstance(step, UploadBatch):
            sent.append(step.ids)
            upload.answered(step, answer(step), now_s + waited_s)
        elif step is not None:
            waited_s += step
    return sent, waited_s


def refused_with(status, code="invalid", **how):
    error = Invalid("no", code=code, **how)
    error.status = status
    return error


def test_batches_are_bounded_by_documents_and_by_bytes():
    sent, _ = run(Upload(documents(5), settings=UploadSettings(documents=2)), report)
    assert sent == [["d0", "d1"], ["d2", "d3"], ["d4"]]
    sent, _ = run(Upload(documents(4, 400), settings=UploadSettings(bytes=1000)), report)
    assert sent == [["d0", "d1"], ["d2", "d3"]]
    sent, _ = run(Upload(documents(2, 4000), settings=UploadSettings(bytes=1000)), report)
    assert sent == [["d0"], ["d1"]]


def test_a_document_of_the_same_id_goes_into_the_next_batch():
    sent, _ = run(Upload([*documents(2), *documents(1)]), report)
    assert sent == [["d0", "d1"], ["d0"]]


def test_nothing_to_upload_sends_nothing():
    upload = Upload([])
    assert run(upload, report) == ([], 0.0)
    assert upload.report.documents == 0


def test_documents_are_taken_from_their_source_when_they_are_sent():
    taken = []

    def endless():
        number = 0
        while True:
            taken.append(number)
            yield {"id": str(number), "text": "t"}
            number += 1

    upload = Upload(endless(), settings=UploadSettings(documents=10, concurrency=3))
    for _ in range(20):
        upload.next(0.0)
    assert len(taken) == 10
    assert upload.next(0.0) is None


def test_the_window_grows_while_the_server_takes_all_and_shrinks_where_it_refuses():
    upload = Upload(documents(10_000), settings=UploadSettings(documents=1, concurrency=4))
    windows = []
    for _ in range(30):
        batch = upload.next(0.0)
        upload.answered(batch, report(batch), 0.0)
        windows.append(upload.report.window)
    assert windows[0] == 2
    assert max(windows) == windows[-1] == 4
    batch = upload.next(0.0)
    upload.answered(batch, Rejected("full", retry_after_s=7.0), 0.0)
    assert (upload.report.window, upload.report.refusals) == (2, 1)
    assert upload.next(0.0) == 7.0
    assert upload.next(7.0).ids == batch.ids


@pytest.mark.parametrize("error", [Rejected("full"), NotReachable("lost", dependency="server")])
def test_a_refused_or_lost_batch_is_sent_again_whole(error):
    answers = [error, error]
    sent, waited_s = run(Upload(documents(3)), lambda batch: answers.pop() if answers else report(batch))
    assert sent == [["d0", "d1", "d2"]] * 3
    assert 1.5 <= waited_s <= 2.0


def test_refused_documents_alone_are_sent_again():
    answers = [{"d1": Problem(code="overloaded", retryable=True)}, {}]
    upload = Upload(documents(3))
    sent, _ = run(upload, lambda batch: report(batch, **answers.pop(0)))
    assert sent == [["d0", "d1", "d2"], ["d1"]]
    assert (upload.report.documents, upload.report.searchable, upload.report.failed) == (3, 3, 0)


def test_an_upload_without_success_is_given_up():
    upload = Upload(documents(1), settings=UploadSettings(patience_s=100))
    with pytest.raises(Rejected, match="full"):
        run(upload, lambda _: Rejected("full", retry_after_s=30))
    upload = Upload(documents(2), settings=UploadSettings(patience_s=100))
    with pytest.raises(Rejected, match="nothing was taken for 100 s"):
        run(upload, lambda batch: report(batch, **dict.fromkeys(batch.ids, Problem(retryable=True))))


def test_what_cannot_be_indexed_is_recorded_and_the_rest_goes_on():
    told = []
    upload = Upload(documents(3), failed=told.append)
    run(upload, lambda batch: report(batch, d1=Problem(code="invalid", detail="too odd")))
    assert told == [UploadFailure("d1", "invalid", "too odd")] == list(upload.report.failures)
    assert (upload.report.documents, upload.report.searchable, upload.report.failed) == (3, 2, 1)


def test_a_batch_that_is_refused_for_one_of_its_documents_is_halved_until_it_is_alone():
    upload = Upload(documents(8))
    sent, _ = run(upload, lambda batch: refused_with(422) if "d5" in batch.ids else report(batch))
    assert [one.id for one in upload.report.failures] == ["d5"]
    assert (upload.report.searchable, upload.report.failed) == (7, 1)
    assert len(sent) == 7


@pytest.mark.parametrize(("status", "code"), [(404, "collection_not_found"), (409, "collection_conflict"), (403, "x")])
def test_what_concerns_every_batch_ends_the_upload(status, code):
    with pytest.raises(Invalid):
        run(Upload(documents(8)), lambda _: refused_with(status, code))


def test_many_failures_are_counted_and_some_named():
    upload = Upload(documents(FAILURES_MAX + 50))
    run(upload, lambda batch: report(batch, **dict.fromkeys(batch.ids, Problem(code="invalid"))))
    assert (upload.report.failed, len(upload.report.failures)) == (FAILURES_MAX + 50, FAILURES_MAX)


def test_a_document_that_is_no_json_is_named():
    with pytest.raises(Invalid, match="cannot be read as JSON"):
        run(Upload([msgspec.Raw(b'{"id": ')]), report)


# Both clients


class Refusing:
    """A server that takes documents after some refusals, over the transport of httpx."""

    def __init__(self, refusals):
        self.refusals, self.taken, self.at_once, self.most = refusals, [], 0, 0

    def answer(self, request):
        import httpx

        if self.refusals:
            self.refusals -= 1
            return httpx.Response(503, headers={"retry-after": "1"}, json={"code": "topic_full", "status": 503})
        ids = [one["id"] for one in msgspec.json.decode(request.content)["documents"]]
        self.taken += ids
        return httpx.Response(200, json={"documents": [{"id": id, "status": "indexed", "chunks": 1} for id in ids]})


@pytest.mark.parametrize("kind", ["Client", "AsyncClient"])
def test_both_clients_upload_everything_and_tell_progress(kind, monkeypatch):
    import httpx

    monkeypatch.setattr("penstock.client.uploads.PAUSE_S", 0.001)
    monkeypatch.setattr("penstock.client.errors.retry_after_s", lambda _: 0.001)
    server, told = Refusing(2), []
    transport = httpx.MockTransport(server.answer)
    settings = UploadSettings(documents=3)
    if kind == "Client":
        with Client("http://x", transport=transport) as client:
            done = client.upload(documents(20), "notes", settings, progress=told.append)
    else:

        async def main():
            async with AsyncClient("http://x", transport=transport) as client:
                return await client.upload(documents(20), "notes", settings, progress=told.append)

        done = asyncio.run(main())
    assert sorted(server.taken) == sorted(f"d{number}" for number in range(20))
    assert (done.documents, done.indexed, done.refusals) == (20, 20, 2)
    assert told[-1] == done


def test_an_error_of_the_source_ends_the_upload():
    import httpx

    def broken():
        yield from documents(3)
        raise OSError("the disk is gone")

    async def main():
        async with AsyncClient("http://x", transport=transport) as client:
            await client.upload(broken(), "notes")

    transport = httpx.MockTransport(Refusing(0).answer)
    with pytest.raises(OSError, match="the disk is gone"):
        asyncio.run(main())
    with Client("http://x", transport=transport) as client, pytest.raises(OSError, match="the disk is gone"):
        client.upload(broken(), "notes")
