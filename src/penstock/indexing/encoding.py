"""Encoding of a file's bytes: its mark, UTF-8, what the file declares, else what its bytes look like."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Final

from penstock.indexing.exclusion import CONTROLS, SkipReason, wide_encoding
from penstock.kernel.errors import Invalid

UTF_8: Final = "utf-8"

#: Longest mark first: that of UTF-32 begins with that of UTF-16.
_MARKS: Final = (
    (codecs.BOM_UTF8, UTF_8),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_WESTERN: Final = "cp1252"
#: Signs of ISO-2022-JP, which is ASCII to any other reader.
_JAPANESE_ESCAPES: Final = (b"\x1b$B", b"\x1b$@")
#: What is guessed from: lines that are not ASCII, up to so many bytes.
GUESS_BYTES_MAX: Final = 65_536
#: Fewer bytes above ASCII say nothing of the encoding: a name, a degree sign. Western Europe has the most of them.
_GUESS_BYTES_MIN: Final = 3
#: More control characters than one of so many are no text.
_CONTROL_SHARE: Final = 100


@dataclass(frozen=True, slots=True)
class DecodedText:
    """The text of a file, and the encoding in which the file has it, by Python's name."""

    text: str
    encoding: str


class UnreadableText(Invalid):
    """A file has no text that can be indexed.

    Attributes:
        reason: Why it is skipped.
    """

    def __init__(self, reason: SkipReason) -> None:
        super().__init__(f"the file is skipped ({reason})", code=reason.value)
        self.reason = reason


def decode(data: bytes) -> DecodedText:
    """Return the text of a file without byte order mark. No byte is replaced.

    Raises:
        UnreadableText: There is no text in it, or its encoding is not known.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _strictly(data[len(mark) :], encoding)
    if b"\0" in data:
        wide = wide_encoding(data)
        if wide is None:
            raise UnreadableText(SkipReason.BINARY)
        return _strictly(data, wide)
    if any(escape in data for escape in _JAPANESE_ESCAPES) and (found := _try(data, "iso2022_jp")) is not None:
        return found
    return _try(data, UTF_8) or _decode_legacy(data)


def _decode_legacy(data: bytes) -> DecodedText:
    if len(data) - len(data.translate(None, CONTROLS)) > len(data) // _CONTROL_SHARE:
        raise UnreadableText(SkipReason.BINARY)
    for propose in (_declared, _mostly_utf8, _guessed, lambda _data: _WESTERN):
        encoding = propose(data)
        found = None if encoding is None else _try(data, encoding)
        if found is not None:
            return found
    raise UnreadableText(SkipReason.UNKNOWN_ENCODING)


def _strictly(data: bytes, encoding: str) -> DecodedText:
    found = _try(data, encoding)
    if found is None:
        raise UnreadableText(SkipReason.UNKNOWN_ENCODING)
    return found


def _try(data: bytes, encoding: str) -> DecodedText | None:
    try:
        if encoding == _MIXED:
            return DecodedText(data.decode(UTF_8, _WESTERN_BYTES), _MIXED)
        return DecodedText(data.decode(encoding), codecs.lookup(encoding).name)
    except (UnicodeError, LookupError):
        return None


# --- Declared

#: The lines and bytes in which an encoding is declared.
_DECLARING_LINES: Final = 2
_DECLARING_BYTES: Final = 1024
_LINE_DECLARATION: Final = re.compile(rb"coding[:=][ \t]?([-\w.]+)")
_MARKUP: Final = re.compile(rb"<(?:\?xml|meta)\b[^<>]*>|\A@charset [^;]*;")
_MARKUP_DECLARATION: Final = re.compile(rb"(?:encoding=|charset=|@charset )[\"']?([-\w.]+)")
#: Codecs that are no encoding of a file, and the one that has been tried.
_NO_ENCODINGS: Final = frozenset({UTF_8, "unicode-escape", "raw-unicode-escape", "idna", "punycode", "utf-7"})
_ASCII: Final = bytes(range(32, 127))


def _declared(data: bytes) -> str | None:
    """Return the encoding that a file declares, as PEP 263, XML, HTML and CSS do, unless that cannot be true."""
    head = data[:_DECLARING_BYTES]
    lines = b"\n".join(head.split(b"\n", _DECLARING_LINES)[:_DECLARING_LINES])
    found = _LINE_DECLARATION.search(lines) or _MARKUP_DECLARATION.search(b"".join(_MARKUP.findall(head)))
    if found is None:
        return None
    try:
        name = codecs.lookup(found[1].decode("ascii", "replace")).name
        if name in _NO_ENCODINGS or _ASCII.decode(name) != _ASCII.decode("ascii"):
            return None
    except (UnicodeError, LookupError):
        return None
    # As browsers do: who says Latin-1 means what Windows made of it.
    return _WESTERN if name == "iso8859-1" and _try(data, _WESTERN) else _SUPERSETS.get(name, name)


# --- UTF-8 with other bytes in it, as logs of several programs have

_MIXED: Final = f"{UTF_8}+{_WESTERN}"
_WESTERN_BYTES: Final = "penstock.western"


def _western_bytes(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode(_WESTERN), error.end


codecs.register_error(_WESTERN_BYTES, _western_bytes)
#: Bytes that are not UTF-8, as `surrogateescape` reads them, and those beside another character above ASCII: in two
#: bytes a character, many pairs are UTF-8 by chance.
_STRAY: Final = re.compile(r"[\udc80-\udcff]")
_CLOSE: Final = re.compile(r"[\udc80-\udcff][^\0-\x7f]|[^\0-\x7f][\udc80-\udcff]")
_ABOVE_ASCII: Final = re.compile(r"[^\0-\x7f]")
#: So many characters that are UTF-8 are no chance.
_UTF8_SHARE: Final = 3


def _mostly_utf8(data: bytes) -> str | None:
    """Return the mixed encoding where most characters above ASCII are UTF-8 and bytes that are not stand alone."""
    text = data.decode(UTF_8, "surrogateescape")
    stray = len(_STRAY.findall(text))
    valid = len(_ABOVE_ASCII.findall(text)) - stray
    return _MIXED if valid >= (_UTF8_SHARE * stray if _CLOSE.search(text) else stray) else None


# --- Guessed

_HANGUL: Final = re.compile(r"[\uac00-\ud7a3]")
_KANA: Final = re.compile(r"[\u3041-\u30ff]")
#: Scripts without which a text is hardly in the language of its encoding. The Chinese of GBK looks like them otherwise.
_SCRIPTS: Final = {"cp949": _HANGUL, "euc_jp": _KANA}
_CHINESE: Final = "gb18030"
#: Encodings that programs write under the name of a smaller one.
_SUPERSETS: Final = {
    "gb2312": _CHINESE,
    "gbk": _CHINESE,
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
}
_HIGH: Final = re.compile(rb"[\x80-\xff]")


def _guessed(data: bytes) -> str:
    # Loaded for the first file that needs it: most trees have none.
    from chardetng_py import EncodingDetector  # noqa: PLC0415

    lines = [line for line in data.splitlines(keepends=True) if not line.isascii()]
    sample = b"".join(lines)[:GUESS_BYTES_MAX]
    if len(_HIGH.findall(sample)) < _GUESS_BYTES_MIN:
        return _WESTERN
    detector = EncodingDetector()
    detector.feed(sample, last=True)
    name = codecs.lookup(detector.guess(tld=None, allow_utf8=False)).name
    name = _SUPERSETS.get(name, name)
    script = _SCRIPTS.get(name)
    return name if script is None or script.search(sample.decode(name, "ignore")) else _CHINESE
