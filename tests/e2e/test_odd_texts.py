"""Texts that nobody would write a test with: indexed, found, and given back as they were."""

from tests.e2e.conftest import penstock, penstock_json

HEBREW = "\u05de\u05d7\u05e9\u05d1 \u05d0\u05d9\u05e9\u05d9 \u05e7\u05d8\u05df\n"
ARABIC = "\u0627\u0644\u0628\u062d\u062b \u0639\u0646 \u0627\u0644\u0646\u0635\u0648\u0635\n"
FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467 walks home \U0001f3e0\n"

TEXTS = {
    "hebrew.md": HEBREW.encode(),
    "arabic.txt": ARABIC.encode(),
    "family.txt": FAMILY.encode(),
    "wide.txt": "kumquat in sixteen bits\n".encode("utf-16"),
    "marked.txt": "mangosteen behind a mark\n".encode("utf-8-sig"),
    "latin.txt": "un durian \u00e0 peau \u00e9paisse\n".encode("latin-1"),
    "mixed.txt": "rambutan \u00e9 in one, ".encode() + "\u00e9 in another\n".encode("latin-1"),
    "windows.txt": b"jackfruit\r\nand\r\nlines\r\n",
    "blank.txt": b" \n\t\n\n",
    "one_word.md": b"a" * 990_000,
    "one_line.md": b"tamarind=1;" + b"[]" * 5_000,
    "controls.txt": b"soursop \x1b[31m\x07\x08 rings\n",
}


def test_odd_texts_are_indexed_found_and_given_back(tmp_path, data_dir):
    root = tmp_path / "odd"
    root.mkdir()
    for name, data in TEXTS.items():
        (root / name).write_bytes(data)
    report = penstock_json("index", root, "--data-dir", data_dir)
    assert (report["indexed"], report["failed"], report["errors"]) == (len(TEXTS), 0, [])
    assert report["encodings"] == {"cp1252": 1, "utf-16-le": 1, "utf-8+cp1252": 1}
    for query, name, text in (
        (HEBREW.split(maxsplit=1)[0], "hebrew.md", HEBREW),
        (ARABIC.split(maxsplit=1)[0], "arabic.txt", ARABIC),
        ("walks home", "family.txt", FAMILY),
        ("kumquat", "wide.txt", "kumquat in sixteen bits\n"),
        ("mangosteen", "marked.txt", "mangosteen behind a mark\n"),
        ("durian", "latin.txt", "un durian \u00e0 peau \u00e9paisse\n"),
        ("rambutan", "mixed.txt", "rambutan \u00e9 in one, \u00e9 in another\n"),
        ("jackfruit", "windows.txt", "jackfruit\r\nand\r\nlines\r\n"),
        ("tamarind", "one_line.md", None),
        ("soursop", "controls.txt", "soursop \x1b[31m\x07\x08 rings\n"),
    ):
        hits = penstock_json("search", query, "--limit", "1", "--data-dir", data_dir)["hits"]
        assert hits[0]["path"] == name
        assert text is None or hits[0]["text"] == text.rstrip("\n")
    shown = penstock("search", "soursop", "--data-dir", data_dir)
    assert "\x1b" not in shown.stdout
    unchanged = penstock_json("index", root, "--data-dir", data_dir)
    assert (unchanged["indexed"], unchanged["unchanged"]) == (0, len(TEXTS))

    status = penstock_json("status", "--data-dir", data_dir)
    # 32 characters are charged as a token, so a word of a megabyte is some 130 chunks, not one and not a million.
    assert len(TEXTS) < status["collections"][0]["chunks"] < 300
