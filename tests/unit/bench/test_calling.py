"""The callers: requests, arrivals, answers."""

import asyncio
import json

import pytest

from bench.calling import Line, Seen, arrivals, requests, search_bodies


def test_a_request_says_how_long_its_body_is():
    (request,) = requests("/v1/search", ["{€}"])
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/search HTTP/1.1\r\n")
    assert f"content-length: {len(body)}".encode() in head


def test_a_body_carries_the_query_and_what_is_wished():
    assert json.loads(search_bodies(["a"], {"rerank": False})[0]) == {"query": "a", "rerank": False}


def test_arrivals_come_at_their_rate_in_order_and_the_same_for_the_same_seed():
    found = arrivals(50.0, 40.0, 3)
    assert found == sorted(found) == arrivals(50.0, 40.0, 3)
    assert len(found) == pytest.approx(2000, rel=0.1)
    assert found[-1] < 40.0


def test_an_answer_in_pieces_is_put_together():
    class Transport:
        def write(self, data):
            self.sent = data

    async def ask():
        line, transport = Line(), Transport()
        line.connection_made(transport)
        answer = asyncio.ensure_future(line.ask(b"request"))
        await asyncio.sleep(0)
        for piece in (b"HTTP/1.1 503 Busy\r\ncontent-le", b"ngth: 5\r\n\r\nhe", b"llo"):
            line.data_received(piece)
        return transport.sent, await answer

    assert asyncio.run(ask()) == (b"request", (503, b"hello"))


def test_only_answers_count_as_answered_and_only_losses_as_degraded():
    seen = Seen()
    seen.note(0.0, 200, b'{"degraded":[]}')
    seen.note(0.0, 200, b'{"degraded":["query_truncated"]}')
    seen.note(0.0, 200, b'{"degraded":["no_rerank"]}')
    seen.note(0.0, 503, b"busy")
    assert (len(seen.latencies_ms), seen.degraded, seen.failed) == (3, 1, 1)
    assert seen.last_failure == "503 busy"
