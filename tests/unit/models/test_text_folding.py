"""Words of every script, found however they are typed."""

import time
import unicodedata

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.models.bm25 import CHARACTERS_MAX, Bm25Runner, Bm25Settings
from penstock.models.text_folding import (
    FOLDED_CHARACTERS_MIN,
    LETTERS_FOLLOW,
    PIECE_CHARACTERS,
    fold_document,
    fold_query,
)
from tests.rigs import languages

RUNNER = Bm25Runner(Bm25Settings())

#: Letters of scripts that are composed, of full and half width, or cut by marks.
LETTERS = st.text(
    st.one_of(
        st.characters(max_codepoint=0x52F),
        st.characters(min_codepoint=0x900, max_codepoint=0x11FF),
        st.characters(min_codepoint=0x1E00, max_codepoint=0x1FFF),
        st.characters(min_codepoint=0x3000, max_codepoint=0x9FFF),
        st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3),
        st.characters(min_codepoint=0xFB00, max_codepoint=0xFFEF),
    ),
    max_size=40,
)


def query_terms(text: str) -> set[int]:
    return set(RUNNER.encode_queries([fold_query(text)])[0].indices.tolist())


def document_terms(text: str) -> set[int]:
    return set(RUNNER.encode_documents([fold_document(text)])[0].indices.tolist())


def best(query: str, texts: list[str]) -> str:
    """Return the text that has most of a query's terms, the rarer ones first."""
    every = [document_terms(text) for text in texts]

    def score(terms: set[int]) -> float:
        return sum(1 / sum(term in one for one in every) for term in query_terms(query) & terms)

    return texts[int(np.argmax([score(terms) for terms in every]))]


@pytest.mark.parametrize("language", ["CHINESE", "JAPANESE", "KOREAN", "THAI", "OTHERS"])
def test_every_text_is_found_first_by_a_word_within_it(language):
    pairs = getattr(languages, language)
    texts = [text for text, _ in pairs]
    assert [best(word, texts) for _, word in pairs] == texts


def test_as_the_engine_cuts_them_no_word_of_the_chinese_texts_is_found():
    for text, word in languages.CHINESE:
        (query,), (document,) = RUNNER.encode_queries([word]), RUNNER.encode_documents([text])
        assert not set(query.indices) & set(document.indices)


@pytest.mark.parametrize("letter", ["茶", "港", "値", "값", "ป"])
def test_a_letter_alone_is_found_within_a_run(letter):
    assert query_terms(letter)
    assert query_terms(letter) <= document_terms(f"前{letter}後" if letter != "ป" else "กปด")


def test_a_long_phrase_is_all_found_and_its_letters_turned_round_are_not():
    text = "需要设置最大等待时间以后再试"
    assert query_terms("设置最大等待时间") <= document_terms(text)
    assert not query_terms("间时待等大最置设") & document_terms(text)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("# 使用zstdmt压缩日志", "zstdmt"),
        ("错误码E40917表示库存不足。", "E40917"),
        ("値はFOO_TIMEOUTで変更できます。", "FOO_TIMEOUT"),
        ("환경변수API_KEY를 설정", "API_KEY"),
        ("型番 ＡＢＣ１２３４ の部品", "ABC1234"),
        ("the ﬁle is ofﬁcial", "file official"),
        ("Die Schlüsselübergabe in Malmö", "schlusselubergabe malmo"),
        ("Die Straße", "STRASSE"),
        ("smørrebrød i København, Łódź", "smorrebrod kobenhavn lodz"),
        ("İSTANBUL ŞUBESİ", "istanbul şubesi"),
        ("ısı", "ISI"),
        ("Ёлка стоит", "елка"),
        ("ΟΔΟΣ", "οδός"),
        ("Ἀθῆναι", "αθηναι"),
        ("ｻｰﾊﾞｰ", "サーバー"),
        ("葛\U000e0100城", "葛城"),
        ("Schiff\u00adfahrt", "Schifffahrt"),
        ("x\u00b2", "x2"),
        ("ยืนยัน\u200bอีเมล", "ยืนยันอีเมล"),
    ],
)
def test_what_is_typed_plainly_finds_what_is_written(text, word):
    assert query_terms(word)
    assert query_terms(word) <= document_terms(text)


@pytest.mark.parametrize(("one", "other"), [("มา", "ม้า"), ("हिन्दी", "हनद"), ("कि", "की"), ("か", "が"), ("ນາ", "ນ້າ")])
def test_marks_that_make_another_word_are_kept(one, other):
    assert not query_terms(one) & query_terms(other)


@pytest.mark.parametrize("word", ["हिन्दी", "பிள்ளை", "ভাষ্য"])
def test_a_mark_does_not_cut_a_word(word):
    assert len(query_terms(word)) == 1


def test_emoji_do_not_hide_the_words_beside_them():
    text = "\U0001f469\u200d\U0001f467walks\U0001f3e0散步\u2764\ufe0f1\ufe0f\u20e3"
    assert query_terms("walks 散步 1") <= document_terms(text)


@given(st.text(st.characters(max_codepoint=0x7F)))
def test_ascii_is_as_it_was(text):
    assert fold_query(text) is text
    assert fold_document(text) is text


@given(LETTERS)
@example("が\u3099 한글 ﬁ Å ǅ ﷺ")
def test_composed_and_decomposed_have_the_same_terms(text):
    forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD")]
    assert len({frozenset(document_terms(form)) for form in forms}) == 1


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=30))
def test_full_and_half_width_have_the_same_terms(text):
    wide = text.translate({code: code + 0xFEE0 for code in range(0x21, 0x7F)})
    assert query_terms(wide) == query_terms(text)


@given(LETTERS)
def test_a_query_that_is_the_document_finds_all_of_it(text):
    assert query_terms(text) <= document_terms(text)
    assert LETTERS_FOLLOW not in fold_query(text)


def test_no_more_is_folded_than_is_read():
    assert FOLDED_CHARACTERS_MIN > CHARACTERS_MAX
    text = "数据库连接池" * 400_000
    folded = fold_query(text)
    assert CHARACTERS_MAX < len(folded) < CHARACTERS_MAX + 4 * PIECE_CHARACTERS
    assert RUNNER.truncated([folded]) == [True]
    short = "é" * 2 * PIECE_CHARACTERS
    assert fold_query(short) == "e" * 2 * PIECE_CHARACTERS


def test_thousands_of_marks_on_a_letter_are_folded_in_no_time():
    for marks in ("\u0301\u0327", "\u05b9\u05b4\u05b0", "\u0e48\u0e38"):
        began_s = time.process_time()
        fold_document("a" + marks * 4_000)
        assert time.process_time() - began_s < 0.04


def test_pieces_are_one_text():
    words = [f"wört{number}" for number in range(5_000)]
    assert len(query_terms(" ".join(words))) == len(words)


def test_letters_do_not_count_as_length():
    plain = RUNNER.encode_documents([fold_query("茶叶应当放在")])[0]
    whole = RUNNER.encode_documents([fold_document("茶叶应当放在")])[0]
    kept = dict(zip(whole.indices.tolist(), whole.values.tolist(), strict=True))
    assert {term: kept[term] for term in plain.indices.tolist()} == dict(
        zip(plain.indices.tolist(), plain.values.tolist(), strict=True)
    )
    assert len(set(whole.indices.tolist())) == len(whole.indices) == 5 + 6
