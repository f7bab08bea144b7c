"""What a library writes over and over is written seldom."""

import logging

from penstock.bus.backends.kafka.client_config import LOG_INTERVAL_S, LogThrottle, throttle_loggers


def line(text: str, *about: object) -> logging.LogRecord:
    return logging.LogRecord("lib", logging.ERROR, __file__, 1, text, about, None)


def level(number: int) -> logging.Logger:
    logger = logging.getLogger(f"ours at {number}")
    logger.setLevel(number)
    return logger


def test_an_error_that_is_mended_is_information_and_only_where_that_is_wanted() -> None:
    told = line("no answer")
    assert LogThrottle(level(logging.INFO)).filter(told)
    assert (told.levelno, told.levelname) == (logging.INFO, "INFO")
    assert not LogThrottle(level(logging.WARNING)).filter(line("no answer"))


def test_lines_of_one_kind_pass_once_in_a_while() -> None:
    now_s = 0.0
    seldom = LogThrottle(level(logging.INFO), lambda: now_s)
    assert [seldom.filter(line("no answer from %s", node)) for node in range(3)] == [True, False, False]
    assert seldom.filter(line("another kind"))
    now_s = LOG_INTERVAL_S
    assert seldom.filter(line("no answer from %s", 1))


def test_all_loggers_of_a_library_are_filtered_once() -> None:
    loggers = [logging.getLogger(name) for name in ("noisylib", "noisylib.part")]
    other = logging.getLogger("noisylibrary")
    throttle_loggers("noisylib")
    throttle_loggers("noisylib")
    assert [len(logger.filters) for logger in (*loggers, other)] == [1, 1, 0]
