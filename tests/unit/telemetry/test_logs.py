"""Log lines are one a fact and can be cut into their parts again."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator

import pytest

from penstock.telemetry.logs import LogfmtFormatter, configure


def line(message: str, *args: object, name: str = "penstock.bus", exc_info=None, **extra: object) -> str:
    record = logging.getLogger(name).makeRecord(
        name, logging.WARNING, __file__, 1, message, args, exc_info, extra=extra
    )
    return LogfmtFormatter().format(record)


def test_a_line_says_when_how_bad_where_and_what() -> None:
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d warning bus: a topic is filling topic=search.request used=0.8",
        line("a topic is %s", "filling", topic="search.request", used=0.8),
    )


def test_others_names_stay_whole() -> None:
    assert " uvicorn.error: " in line("x", name="uvicorn.error")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", "key=plain"),
        (7, "key=7"),
        ("two words", 'key="two words"'),
        ('say "x"', 'key="say \\"x\\""'),
        ("", 'key=""'),
        ("a=b", 'key="a=b"'),
        ("forged\n2026-01-31T12:00:00 error gate: x", 'key="forged\\n2026-01-31T12:00:00 error gate: x"'),
        ("größer", "key=größer"),
    ],
)
def test_a_value_ends_where_it_ends(value: object, written: str) -> None:
    text = line("fact", key=value)
    assert text.endswith(" " + written)
    assert "\n" not in text


def test_a_traceback_follows_its_line() -> None:
    try:
        raise ZeroDivisionError("by zero")
    except ZeroDivisionError:
        text = line("failed", exc_info=sys.exc_info(), topic="t")
    first, second, *_, last = text.split("\n")
    assert first.endswith("failed topic=t")
    assert second.startswith("Traceback")
    assert last == "ZeroDivisionError: by zero"


@pytest.fixture
def loggers() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    before = root.level, root.handlers[:]
    noisy = {name: logging.getLogger(name).level for name in ("httpx", "httpcore", "uvicorn.access")}
    root.handlers = []
    yield root
    root.setLevel(before[0])  # not by assignment: loggers remember what they were allowed
    root.handlers = before[1]
    for name, level in noisy.items():
        logging.getLogger(name).setLevel(level)


def test_lines_of_the_level_and_above_go_to_standard_error(
    loggers: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    configure("warning")
    logging.getLogger("penstock.gate").info("too quiet")
    logging.getLogger("penstock.gate").warning("loud", extra={"client": "alice"})
    configure("warning")  # a second time adds no second handler
    logging.getLogger("penstock.gate").error("louder")
    written = capsys.readouterr()
    assert written.out == ""
    assert [text.split(" ", 1)[1] for text in written.err.splitlines()] == [
        "warning gate: loud client=alice",
        "error gate: louder",
    ]


def test_chatty_libraries_are_quieter(loggers: logging.Logger) -> None:
    configure("debug")
    assert logging.getLogger("httpx").getEffectiveLevel() == logging.WARNING


def test_what_libraries_tell_their_makers_is_not_written(
    loggers: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    configure("debug")
    logging.getLogger("aiokafka.conn").debug("Request: SaslAuthenticateRequest(sasl_auth_bytes=%r)", b"a password")
    logging.getLogger("penstock.gate").debug("ours")
    assert capsys.readouterr().err.endswith(" debug gate: ours\n")
    assert not logging.getLogger("aiokafka.conn").isEnabledFor(logging.DEBUG)
