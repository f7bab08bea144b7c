"""What a library writes over and over is written seldom."""

import logging

from penstock.bus.backends.kafka.noise import SELDOM_S, Seldom, hush


def line(text: str, *about: object) -> logging.LogRecord:
    return logging.LogRecord("lib", logging.ERROR, __file__, 1, text, about, None)


def level(number: int) -> logging.Logger:
    logger = logging.getLogger(f"ours at {number}")
    logger.setLevel(number)
    return logger


def test_an_error_that_is_mended_is_information_and_only_where_that_is_wanted() -> None:
    told = line("no answer")
    assert Seldom(level(logging.INFO)).filter(told)
    assert (told.levelno, told.levelname) == (logging.INFO, "INFO")
    assert not Seldom(level(logging.WARNING)).filter(line("no answer"))


def test_lines_of_one_kind_pass_once_in_a_while() -> None:
    now_s = 0.0
    seldom = Seldom(level(logging.INFO), lambda: now_s)
    assert [seldom.filter(line("no answer from %s", node)) for node in range(3)] == [True, False, False]
    assert seldom.filter(line("another kind"))
    now_s = SELDOM_S
    assert seldom.filter(line("no answer from %s", 1))


def test_all_loggers_of_a_library_are_filtered_once() -> None:
    loggers = [logging.getLogger(name) for name in ("noisylib", "noisylib.part")]
    other = logging.getLogger("noisylibrary")
    hush("noisylib")
    hush("noisylib")
    assert [len(logger.filters) for logger in (*loggers, other)] == [1, 1, 0]
