"""Exclusion of files that are not worth indexing, judged by their name and their first bytes.

Source that is left out costs more than data that is let in. So a file is left out only on a sign that people do not
write, and prose is never judged by its lines.
"""

# Lists of names are read as lists of names, not as columns of quotes.
# ruff: noqa: SIM905

import codecs
import re
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Final

VENDORED_DIRECTORIES: Final = frozenset(
    """
    .git .hg .svn .bzr .jj CVS _darcs
    node_modules bower_components jspm_packages vendor third_party thirdparty site-packages
    dist-packages .venv .tox .nox .eggs .mypy_cache .ruff_cache .pytest_cache .hypothesis
    __pycache__ .ipynb_checkpoints .idea .gradle .terraform .bundle .yarn .pnpm-store .next .nuxt
    .svelte-kit .parcel-cache .cache .penstock Pods DerivedData
    """.split()
)

#: A directory that holds one of these is an environment or a data directory, whatever its name.
VENDORED_MARKERS: Final = frozenset({"pyvenv.cfg", "penstock.lock"})


class SkipReason(StrEnum):
    """Reason why a file, or a directory with all that is in it, is not indexed."""

    IGNORED = "ignored"
    VENDORED = "vendored"
    LOCK_FILE = "lock_file"
    MINIFIED = "minified"
    GENERATED = "generated"
    DATA = "data"
    SECRET = "secret"  # noqa: S105 - a reason, not a password
    BINARY = "binary"
    UNKNOWN_ENCODING = "unknown_encoding"
    TOO_LARGE = "too_large"
    EMPTY = "empty"
    SYMLINK = "symlink"
    SYMLINK_OUTSIDE = "symlink_outside"
    SYMLINK_LOOP = "symlink_loop"
    SYMLINK_BROKEN = "symlink_broken"
    NOT_A_FILE = "not_a_file"
    UNREADABLE = "unreadable"


_LOCK_FILES: Final = """
    package-lock.json npm-shrinkwrap.json yarn.lock pnpm-lock.yaml bun.lock bun.lockb deno.lock
    poetry.lock uv.lock pdm.lock Pipfile.lock pixi.lock conda-lock.yml pylock.toml
    requirements.lock requirements-lock.txt requirements-dev.lock
    Cargo.lock Gemfile.lock gems.locked Podfile.lock Package.resolved Cartfile.resolved composer.lock mix.lock
    rebar.lock go.sum go.work.sum Gopkg.lock gradle.lockfile packages.lock.json paket.lock pubspec.lock flake.lock
    Chart.lock .terraform.lock.hcl MODULE.bazel.lock stack.yaml.lock cabal.project.freeze renv.lock conan.lock
    lazy-lock.json
"""
_PRIVATE_FILES: Final = """
    .env .netrc _netrc .pgpass .git-credentials .htpasswd .pypirc .vault_pass
    id_rsa id_dsa id_ecdsa id_ecdsa_sk id_ed25519 id_ed25519_sk
"""
_BY_NAME: Final = {
    **dict.fromkeys(_LOCK_FILES.split(), SkipReason.LOCK_FILE),
    **dict.fromkeys(_PRIVATE_FILES.split(), SkipReason.SECRET),
}

_BINARY: Final = """
    pyc pyo pyd dylib dll exe jar war ear wasm ilk elf
    zip gz tgz bz2 xz zst lz4 7z rar tar whl egg deb rpm apk dmg iso img cab msi
    png jpg jpeg gif bmp ico icns webp tif tiff psd avif heic jp2 xcf svgz
    mp3 mp4 m4a m4v wav ogg oga ogv flac aac avi mov mkv webm wmv
    ttf otf woff woff2 eot
    pdf docx xls xlsx ppt pptx odt ods odp epub mobi
    sqlite sqlite3 mdb parquet feather arrow npy npz h5 hdf5 joblib onnx
    safetensors gguf tflite gmo swp swo der
"""
_SECRETS: Final = "keystore jks p12 pfx ppk kdbx"
_PICTURES: Final = "svg eps"
_BY_EXTENSION: Final = {
    **dict.fromkeys(_BINARY.split(), SkipReason.BINARY),
    **dict.fromkeys(_SECRETS.split(), SkipReason.SECRET),
    **dict.fromkeys(_PICTURES.split(), SkipReason.DATA),
}
#: Extensions of binary formats that kinds of text have too: Modelica, a linker's script, Pkl, Zope's pages.
_AMBIGUOUS: Final = frozenset("a class doc ko mo node o pdb pickle pkl pt pth so".split())
#: Extensions of an `.env` file that is there to be read (`.env.example`).
_TEMPLATE: Final = frozenset("example sample template dist defaults schema".split())

_WEB: Final = frozenset("js mjs cjs jsx ts css html htm".split())
_PROSE: Final = frozenset("md markdown mdx rst txt adoc org tex html htm log".split())
#: Templates, and prose: they have the words of a generated file without being one.
_TALKING: Final = _PROSE | frozenset("in tmpl tpl template j2 jinja jinja2 mustache hbs ejs erb eex m4".split())
#: Formats whose content may be records as well as text; source is not judged by its digits.
_RECORDS: Final = frozenset("json jsonl ndjson geojson topojson csv tsv txt dat xml yaml yml".split())
#: Formats in which a key is kept rather than talked about.
_KEEPING: Final = frozenset(["", *"pem key crt cer asc gpg p8 json txt".split()])
_MAPPED: Final = (".js.map", ".mjs.map", ".cjs.map", ".css.map", ".ts.map")


def extension_of(name: str) -> str:
    """Return a file's extension in lower case, empty where it has none (`Makefile`, `.bashrc`)."""
    stem, _, extension = name.rpartition(".")
    return extension.lower() if stem else ""


def judge_name(name: str, extension: str) -> SkipReason | None:
    """Return why a file of this name is not indexed, if its name alone says it."""
    reason = _BY_NAME.get(name) or _BY_EXTENSION.get(extension)
    if reason is None and extension:
        if extension == "map" and name.endswith(_MAPPED):
            reason = SkipReason.GENERATED
        elif extension in _WEB and ".min." in name:
            reason = SkipReason.MINIFIED
        elif name.startswith(".env.") and extension not in _TEMPLATE:
            reason = SkipReason.SECRET
    return reason


#: The beginning of a file that is looked at.
SNIFF_BYTES: Final = 8_192
#: Byte order marks of encodings in which text holds NUL bytes.
_WIDE_MARKS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
#: Fewer zeros say nothing: a binary file may have one.
_WIDE_ZEROS_MIN: Final = 4
#: Control characters that text does not hold; a form feed and an escape are seen in it.
CONTROLS: Final = bytes(set(range(32)) - set(b"\b\t\n\v\f\r\x1b"))


def is_binary(head: bytes) -> bool:
    """Tell whether a file that begins with `head` is no text in any encoding."""
    return b"\0" in head and not head.startswith(_WIDE_MARKS) and wide_encoding(head) is None


def wide_encoding(head: bytes) -> str | None:
    """Return the encoding of text that is UTF-16 without a mark, `None` for any other bytes.

    Most characters of such text are below U+0100, so that one byte of two is zero most often, and the other never.
    """
    even, odd = head[0:SNIFF_BYTES:2], head[1:SNIFF_BYTES:2]
    for encoding, high, low in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        if max(_WIDE_ZEROS_MIN, len(high) // 2) <= high.count(0) and 0 not in low and not _has_controls(low):
            return encoding
    return None


def _has_controls(data: bytes) -> bool:
    return len(data.translate(None, CONTROLS)) != len(data)


def _is_plain(head: bytes) -> bool:
    """Tell whether the bytes are UTF-8 without control characters, the last character perhaps cut."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return not _has_controls(head)


#: A longer line was not written by a person, unless it is prose.
_LINE_LONG: Final = 1_000
#: A line of base64 has at least so many characters.
_BASE64_LINE: Final = 56
#: Fewer bytes than these are not worth leaving out for what they are.
_DATA_BYTES_MIN: Final = 4_096

_DIGITS: Final = b"0123456789"
_LETTERS: Final = bytes({*range(ord("A"), ord("Z") + 1), *range(ord("a"), ord("z") + 1), *range(0x80, 0x100)})
_BASE64: Final = _DIGITS + _LETTERS[:52] + b"+/=-_" + b"\"',;\\\r"


def judge_content(extension: str, head: bytes, size: int) -> SkipReason | None:
    """Return why a file is not indexed, if its beginning says it.

    Args:
        extension: Its extension.
        head: Its first `SNIFF_BYTES`.
        size: Its bytes.
    """
    if (b"\0" in head and is_binary(head)) or (extension in _AMBIGUOUS and not _is_plain(head)):
        return SkipReason.BINARY
    if extension not in _TALKING and _says_generated(head):
        return SkipReason.GENERATED
    if extension in _KEEPING and (reason := _judge_kept(extension, head)) is not None:
        return reason
    return _judge_shape(extension, head) if size >= _DATA_BYTES_MIN and extension != "ipynb" else None


_KEY: Final = re.compile(
    rb"(?m)^[ \t]*-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----|\"private_key\"\s*:\s*\"-----BEGIN "
)


def _judge_kept(extension: str, head: bytes) -> SkipReason | None:
    if b"PRIVATE KEY" in head and _KEY.search(head) is not None:
        return SkipReason.SECRET
    return SkipReason.LOCK_FILE if extension == "txt" and b"--hash=sha" in head else None


#: The top of a file, in which a tool says that it wrote it.
_HEADER_BYTES: Final = 1_024
_COMMENT: Final = (b"#", b"//", b"/*", b"*", b"--", b";", b"%", b"<!--", b'"""', b"'''", b"(*", b"{-")
_BLOCKS: Final = {
    b"/*": b"*/",
    b"<!--": b"-->",
    b"(*": b"*)",
    b"{-": b"-}",
    b'"""': b'"""',
    b"'''": b"'''",
}
#: What stands above a file's first comment and is no code yet. A file with code above the comment writes such files.
_PREAMBLE: Final = (*_COMMENT, b"<?", b"'use strict'", b'"use strict"', b"@charset", b"@echo")
_MARK: Final = re.compile(rb"@generated\b|<auto-?generated", re.IGNORECASE)
_FORBIDS: Final = re.compile(
    rb"(?:do not|don't|should not|must not|not be|never) (?:manually |be )?(?:edit|modif|chang|touch)", re.IGNORECASE
)


def _says_generated(head: bytes) -> bool:
    """Tell whether a comment at the top says that the file is generated and not to be edited."""
    place = head.find(b"enerated", 0, _HEADER_BYTES)
    if place < 0 and (place := head.find(b"ENERATED", 0, _HEADER_BYTES)) < 0:
        return False
    above, below = head[:place].split(b"\n"), head[place : place + _HEADER_BYTES].split(b"\n")
    has_code, in_comment = _scan_header(above[:-1])
    if has_code:
        return False
    lines = [*above[-3:-1], above[-1] + below[0], *below[1:3]]
    comment = b" ".join(line for line in map(bytes.strip, lines) if in_comment or line.startswith(_COMMENT))
    if _MARK.search(comment) is not None:
        return True
    return b"generated" in comment.lower() and _FORBIDS.search(comment) is not None


def _scan_header(lines: Iterable[bytes]) -> tuple[bool, bool]:
    """Tell whether there is code among the lines, and whether the last one is within a comment of several lines."""
    closing = b""
    for line in map(bytes.strip, lines):
        if closing:
            closing = b"" if closing in line else closing
            continue
        opening = next((one for one in _BLOCKS if line.startswith(one)), b"")
        if opening and _BLOCKS[opening] not in line[len(opening) :]:
            closing = _BLOCKS[opening]
        elif line and not line.startswith(_PREAMBLE):
            return True, False
    return False, bool(closing)


#: A part of a beginning that is looked at first. Data are the same all over, and the whole takes ten times as long.
_SAMPLE: Final = slice(2_048, 2_560)
#: Lines that a person wrote above the long ones, comments left out.
_WRITTEN_LINES_MAX: Final = 5


def _judge_shape(extension: str, head: bytes) -> SkipReason | None:
    """Judge lines and characters: none of a file's words are looked at."""
    if extension in _RECORDS and _is_numbers(head[_SAMPLE]) and _is_numbers(head):
        return SkipReason.DATA
    if (extension in _RECORDS or extension in _KEEPING) and b" " not in head[_SAMPLE] and _is_mostly(_is_base64, head):
        return SkipReason.DATA
    # A beginning that is mostly long lines has one at one of these places. Counting all lines takes ten times as long.
    if head.find(b"\n", 2048, 2048 + _LINE_LONG) >= 0 and head.find(b"\n", 5120, 5120 + _LINE_LONG) >= 0:
        return None
    if extension in _PROSE or not _is_mostly(_is_long, head):
        return None
    if extension not in _RECORDS and _written_lines(head) > _WRITTEN_LINES_MAX:
        return None
    return SkipReason.MINIFIED if extension in _WEB else SkipReason.DATA


def _is_numbers(data: bytes) -> bool:
    digits = len(data) - len(data.translate(None, _DIGITS))
    return digits > len(data) - len(data.translate(None, _LETTERS))


def _is_mostly(is_meant: Callable[[bytes], bool], head: bytes) -> bool:
    return sum(len(line) for line in head.split(b"\n") if is_meant(line)) * 2 > len(head)


def _is_long(line: bytes) -> bool:
    return len(line) > _LINE_LONG


def _is_base64(line: bytes) -> bool:
    return len(line) >= _BASE64_LINE and not line.lstrip(b" \t#*").translate(None, _BASE64)


def _written_lines(head: bytes) -> int:
    lines = (line.strip() for line in head.split(b"\n") if not _is_long(line))
    return sum(1 for line in lines if line and not line.startswith(_COMMENT))
