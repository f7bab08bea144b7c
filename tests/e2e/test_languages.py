"""Words of every script, asked of a real server: found by words alone, and shown as they were given."""

import unicodedata

import pytest

from tests.rigs import languages

MIXED = {
    "logs": "# 使用zstdmt压缩日志，避免磁盘写满\nrun()",
    "config": "# 调用loadTenantConfig加载租户配置\nx = 1",
    "stock": "错误码E40917表示库存不足。",
    "limit": "値はFOO_TIMEOUTで変更できます。",
    "gzip": "compress old logs with gzip every night",
    "load": "load the configuration of a tenant from disk",
    "codes": "error codes: E40900 conflict, E40400 not found",
    "other": "the timeout is set by BAR_TIMEOUT",
}

WAYS = {
    "nfc": unicodedata.normalize("NFC", "Die Schlüsselübergabe an Zoë in Malmö ist vertagt"),
    "nfd": unicodedata.normalize("NFD", "Le résumé du contrat est déposé à Orléans"),
    "wide": "型番 ＡＢＣ１２３４ の部品",
    "ligature": "the ﬁle is ofﬁcial",
    "turkish": "İSTANBUL ŞUBESİ taşındı",
    "russian": "Ёлка стоит во дворе",
    "plain": "a queue of messages waits for workers",
}

ASKED = {
    "nfc": ["Schlüsselübergabe", "Schlusselubergabe", "malmo", "ZOE"],
    "nfd": ["résumé", "resume", "Orleans", "depose"],
    "wide": ["ABC1234", "ａｂｃ１２３４"],
    "ligature": ["file", "official", "oﬃcial"],
    "turkish": ["istanbul", "İstanbul", "şubesi", "SUBESI"],
    "russian": ["елка", "ёлка"],
}


@pytest.fixture
def client(serve):
    with serve().client() as made:
        yield made


def fill(client, name, texts):
    assert client.put(f"/v1/collections/{name}").json()["text"] == 2
    documents = [{"id": id, "text": text} for id, text in texts.items()]
    told = client.post(f"/v1/collections/{name}/documents", json={"documents": documents}).json()
    assert told["indexed"] == len(texts)


def by_words(client, name, query):
    """Return the hits of a search by words alone, best first."""
    asked = {"query": query, "weights": {"dense": 0}, "limit": 5}
    return client.post(f"/v1/collections/{name}/search", json=asked).json()["hits"]


def test_words_of_scripts_without_spaces_are_found(client):
    for name in ("CHINESE", "JAPANESE", "KOREAN", "THAI", "OTHERS"):
        pairs = getattr(languages, name)
        fill(client, name, {text: text for text, _ in pairs})
        found = [by_words(client, name, word)[0] for _, word in pairs]
        assert [(hit["id"], hit["text"]) for hit in found] == [(text, text) for text, _ in pairs]


def test_words_that_the_dense_model_cannot_read_are_found_first_by_default(client):
    fill(client, "zh", {text: text for text, _ in languages.CHINESE})
    for text, word in languages.CHINESE:
        answer = client.post("/v1/collections/zh/search", json={"query": word, "strict": True}).json()
        assert (answer["hits"][0]["id"], answer["degraded"]) == (text, [])
    unknown = client.post("/v1/collections/zh/search", json={"query": "饕餮"}).json()
    assert unknown["hits"]


def test_identifiers_that_touch_chinese_letters_are_found(client):
    fill(client, "mixed", MIXED)
    asked = {"zstdmt": "logs", "loadTenantConfig": "config", "E40917": "stock", "FOO_TIMEOUT": "limit"}
    assert {query: by_words(client, "mixed", query)[0]["id"] for query in asked} == asked


def test_a_word_is_found_however_it_is_typed(client):
    fill(client, "ways", WAYS)
    for id, queries in ASKED.items():
        for query in queries:
            for form in ("NFC", "NFD"):
                hits = by_words(client, "ways", unicodedata.normalize(form, query))
                assert [(hit["id"], hit["text"]) for hit in hits] == [(id, WAYS[id])], query
            whole = client.post("/v1/collections/ways/search", json={"query": query}).json()
            assert whole["hits"][0]["id"] == id, query


def test_texts_of_no_collection_are_prepared_too(client):
    def terms(text, kind):
        told = client.post("/v1/sparse", json={"texts": [text], "kind": kind}).json()
        return set(told["vectors"][0]["indices"])

    for text, _ in languages.CHINESE[:3]:
        assert terms(text[3:7], "query") <= terms(text, "document")
    assert terms("resume", "query") == terms("résumé", "query")
    long = "数据库连接池" * 5_000
    assert terms("连接", "query") <= terms(long, "document")
