"""How commands are written for Redis."""

from redis.asyncio.connection import Connection

from penstock.bus.backends.redis.multiplexer import encode_commands


def test_commands_are_written_as_the_client_itself_writes_them():
    commands = [
        ("XADD", "a:stream", "*", "r", b"\r\n\x00\xff" * 3),
        ("XACK", "ä", "group:", b"1-1", 100_000),
        ("TIME",),
    ]
    assert encode_commands(commands) == b"".join(Connection().pack_commands(commands))


def test_an_empty_word_is_written():
    assert encode_commands([("SET", "", b"")]) == b"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$0\r\n\r\n"
