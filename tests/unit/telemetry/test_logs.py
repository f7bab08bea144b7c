"""Log lines are one a fact and can be cut into their parts again."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.kernel.context import current_request_id
from penstock.telemetry.logs import JsonFormatter, LogfmtFormatter, configure


def line(
    message: str,
    *args: object,
    name: str = "penstock.bus",
    exc_info: Any = None,
    form: type[logging.Formatter] = LogfmtFormatter,
    **extra: object,
) -> str:
    record = logging.getLogger(name).makeRecord(
        name, logging.WARNING, __file__, 1, message, args, exc_info, extra=extra
    )
    return form().format(record)


def json_line(message: str, *args: object, **extra: Any) -> dict[str, object]:
    text = line(message, *args, form=JsonFormatter, **extra)
    assert "\n" not in text
    told: dict[str, object] = json.loads(text)
    return told


@pytest.fixture
def request_id() -> Iterator[str]:
    token = current_request_id.set("r-1")
    yield "r-1"
    current_request_id.reset(token)


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


def test_a_json_line_has_the_same_facts() -> None:
    told = json_line("a topic is %s", "filling", topic="search.request", used=0.8, path=Path("/x"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(told.pop("time")))
    facts = {"topic": "search.request", "used": 0.8, "path": "/x"}
    assert told == {"level": "warning", "logger": "bus", "message": "a topic is filling"} | facts


def test_a_fact_never_replaces_a_member_that_every_json_line_has() -> None:
    told = json_line("fact", level="low", time=3)
    assert (told["level"], told["level_"], told["time_"]) == ("warning", "low", 3)


def test_a_json_line_holds_its_traceback() -> None:
    try:
        raise ZeroDivisionError("by zero")
    except ZeroDivisionError:
        told = json_line("failed", exc_info=sys.exc_info())
    assert str(told["exception"]).endswith("ZeroDivisionError: by zero")


def test_a_line_written_for_a_request_has_its_id(request_id: str) -> None:
    assert line("fact").endswith(" fact request_id=r-1")
    assert json_line("fact")["request_id"] == request_id
    assert json_line("fact", request_id="another")["request_id"] == "another"


def test_a_line_written_for_no_request_has_no_id() -> None:
    assert "request_id" not in json_line("fact")
    assert "request_id" not in line("fact")
