"""Text is read in the encoding that it has, and what cannot be read is refused, not replaced."""

import codecs
import random

import pytest

from penstock.indexing.encoding import UnreadableText, decode

#: Text, encoding it is written in, and the name under which it is told where that differs.
TEXTS = [
    ("plain words\n", "utf-8", None),
    ("grün\r\n", "utf-8", None),
    ("Größe des Puffers in Byte, für Übertragungen\n", "latin-1", "cp1252"),
    ("The customer’s “naïve” façade costs 5 €\n", "cp1252", None),
    ("-- выбрать заказы покупателя за месяц\nSELECT * FROM orders;\n", "cp1251", None),
    ("Счёт за электричество\n", "koi8-u", None),
    ("# 计算订单总价\ndef total(): return 1\n", "gb18030", None),
    ("# 注文の合計を計算する\ndef goukei(): return 1\n", "cp932", None),
    ("# ファイルを開く\n", "euc_jp", None),
    ("# 計算訂單總價\n", "big5hkscs", None),
    ("# 주문 합계를 계산한다\n", "cp949", None),
    ("Příliš žluťoučký kůň úpěl ďábelské ódy\n", "cp1250", None),
    ("注文の合計\n", "iso2022_jp", None),
    ("Jahresabschluss mit Anhang\n", "utf-16-le", None),
    ("Jahresabschluss mit Anhang\n", "utf-16-be", None),
    ("# Author: François Pinard\nimport os\n" + "x = 1\n" * 500, "latin-1", "cp1252"),
]


@pytest.mark.parametrize(("text", "encoding", "told"), TEXTS)
def test_text_is_read_in_its_encoding(text: str, encoding: str, told: str | None) -> None:
    read = decode(text.encode(encoding))
    assert (read.text, read.encoding) == (text, told or encoding)


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
@pytest.mark.parametrize("text", ["", "aé\n", "文件"])
def test_a_mark_says_the_encoding_and_is_no_text(mark: bytes, encoding: str, text: str) -> None:
    read = decode(mark + text.encode(encoding))
    assert (read.text, read.encoding) == (text, encoding)


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        ("# -*- coding: koi8-r -*-\n# Ключ\n".encode("koi8-r"), "koi8-r"),
        ("#!/usr/bin/python\n# vim: set fileencoding=cp1251 :\n# Да\n".encode("cp1251"), "cp1251"),
        ("# -*- coding: latin-1 -*-\n# Zähler\n".encode("latin-1"), "cp1252"),
        ('<?xml version="1.0" encoding="windows-1251"?><a>Да</a>'.encode("cp1251"), "cp1251"),
        ("<html><head><meta charset=koi8-r></head>Да".encode("koi8-r"), "koi8-r"),
        ('@charset "shift_jis";\n/* 値 */'.encode("shift_jis"), "cp932"),
    ],
)
def test_a_declared_encoding_is_believed(data: bytes, encoding: str) -> None:
    read = decode(data)
    assert (read.text, read.encoding) == (data.decode(encoding), encoding)


@pytest.mark.parametrize("name", ["nonsense", "utf-8", "utf-16", "rot13", "unicode_escape", "utf-7", "cp037", "zip"])
def test_a_declaration_that_cannot_be_true_is_not_believed(name: str) -> None:
    data = f"# coding: {name}\n# \\x41 Zähler für Wünsche\n".encode("latin-1")
    assert decode(data).text == data.decode("latin-1")


@pytest.mark.parametrize(
    "data",
    [
        "ok: grün\n".encode() + "fehler: grün\n".encode("latin-1"),
        "é here, ".encode() + b"\xe9 there\n",
    ],
)
def test_utf8_with_bytes_of_another_encoding_keeps_both(data: bytes) -> None:
    read = decode(data)
    assert read.encoding == "utf-8+cp1252"
    assert "\ufffd" not in read.text
    assert set(read.text) & {"ü", "é"}
    assert "Ã" not in read.text


def test_utf8_that_ends_within_a_character_stays_utf8() -> None:
    assert decode(("语言和文字。" * 20).encode()[:-1]).text.startswith("语言和文字。" * 19)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"a text line\n" * 900 + b"\0\1\2 tail", "binary"),
        (b"a\0b", "binary"),
        ("Inventar".encode("utf-32-le"), "binary"),
        (random.Random(3).randbytes(4000).replace(b"\0", b"\1"), "binary"),
        (b"\xff\xfea", "unknown_encoding"),
        (b"\xff\xfe\x00\xd8a\0", "unknown_encoding"),
        (b"one \x81 and two \x8d\n", "unknown_encoding"),
    ],
)
def test_what_is_no_text_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableText) as raised:
        decode(data)
    assert (raised.value.reason, raised.value.code) == (reason, reason)


def test_ascii_that_only_looks_like_another_encoding_stays_as_it_is() -> None:
    assert decode("Hi Mom ☺".encode("utf-7")).text == "Hi Mom +Jjo-"
    assert decode(b"\x1b[31mred\x1b[0m\n").text == "\x1b[31mred\x1b[0m\n"
