"""Codes, versions and addresses, asked of a real server: the text that holds one comes first."""

import pytest

NOUNS = ("table", "view", "cursor", "session", "index", "column", "lock", "buffer", "listener", "segment", "package")


def noun(number):
    return NOUNS[number * 7 % len(NOUNS)]


COUNT = 60
KINDS = {
    "errors": {f"ORA-{17 * n + 100:05}": f"ORA-{17 * n + 100:05}: {noun(n)} does not exist" for n in range(COUNT)},
    "versions": {
        f"{n % 4}.{n % 7}.{n}": f"## {n % 4}.{n % 7}.{n}\n\n- Fixed {noun(n)} handling\n- Improved {noun(n + 3)}"
        for n in range(COUNT)
    },
    "addresses": {
        f"10.{n % 3}.{n % 11}.{n}": f"host {noun(n)}-{n}: address 10.{n % 3}.{n % 11}.{n}, gateway 10.0.0.254"
        for n in range(COUNT)
    },
    "hexadecimal": {
        f"0x{n * 48271 % 65521:08X}": f"STATUS_{noun(n)} = 0x{n * 48271 % 65521:08X}" for n in range(1, COUNT + 1)
    },
}


@pytest.fixture
def client(serve):
    with serve().client() as made:
        yield made


@pytest.mark.parametrize("asked", ["{}", "what is {} about"])
def test_what_holds_the_code_comes_first(client, asked):
    for kind, texts in KINDS.items():
        client.put(f"/v1/collections/{kind}")
        documents = [{"id": id, "text": text} for id, text in texts.items()]
        client.post(f"/v1/collections/{kind}/documents", json={"documents": documents}).raise_for_status()
        found = {
            code: client.post(f"/v1/collections/{kind}/search", json={"query": asked.format(code), "limit": 1}).json()
            for code in texts
        }
        wrong = [code for code, answer in found.items() if answer["hits"][0]["id"] != code]
        assert (kind, wrong) == (kind, [])
