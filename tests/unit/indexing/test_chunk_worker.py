"""A grammar that takes its process with it costs the text its structure, not its place in the index."""

import asyncio
from collections.abc import Callable

import pytest

from penstock.indexing.chunk import Chunk
from penstock.indexing.chunk_worker import FallbackChunker
from penstock.kernel.errors import Broken
from penstock.kernel.messages import ChunkText

CHUNK = Chunk("x", 1, 1, "")


class Processes:
    """Gives the message of each call, and dies over some languages."""

    def __init__(self, *deadly: str, code: str = "worker_died") -> None:
        self.deadly = deadly
        self.code = code
        self.languages: list[str] = []

    async def run(self, call: Callable[[], list[Chunk]]) -> list[Chunk]:
        (message,) = call.args  # type: ignore[attr-defined]
        self.languages.append(message.language)
        if message.language in self.deadly:
            raise Broken("died", code=self.code)
        return [CHUNK]


def cut(processes: Processes, language: str) -> list[Chunk]:
    return asyncio.run(FallbackChunker(processes.run)(ChunkText("x", language)))


def test_text_whose_grammar_kills_its_process_is_cut_by_its_lines(caplog: pytest.LogCaptureFixture) -> None:
    processes = Processes("shell")
    assert cut(processes, "shell") == [CHUNK]
    assert processes.languages == ["shell", "text"]
    assert "the grammar for shell crashed over a text or took too long" in caplog.text


def test_notebook_whose_grammar_kills_its_process_stays_a_notebook() -> None:
    processes = Processes("notebook")
    assert cut(processes, "notebook") == [CHUNK]
    assert processes.languages == ["notebook", "notebook/text"]


def test_other_texts_are_cut_once() -> None:
    processes = Processes("shell")
    assert cut(processes, "python") == [CHUNK]
    assert processes.languages == ["python"]


@pytest.mark.parametrize(
    ("deadly", "code"), [(("text",), "worker_died"), (("python", "text"), "worker_died"), (("python",), "bug")]
)
def test_what_is_not_the_grammars_doing_is_reported(deadly: tuple[str, ...], code: str) -> None:
    processes = Processes(*deadly, code=code)
    with pytest.raises(Broken) as caught:
        cut(processes, deadly[0])
    assert caught.value.code == code
