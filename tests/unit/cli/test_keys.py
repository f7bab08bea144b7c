import json
import re
import time
from pathlib import Path

import pytest

from penstock.cli import main as entry
from penstock.kernel.access import parse_key
from penstock.stores.key_store import KEYS_FILE
from penstock.telemetry.audit_log import AUDIT_FILE


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PENSTOCK_DATA_DIR", "data")


def ran(capsys, *arguments, code=0):
    assert entry.run(["keys", *arguments]) == code
    return capsys.readouterr()


def listed(capsys):
    return json.loads(ran(capsys, "list", "--json").out)["keys"]


def test_a_key_is_alone_on_standard_output(capsys):
    shown = ran(capsys, "create", "ci")
    assert parse_key(shown.out.removesuffix("\n")) is not None
    assert "not shown again" in shown.err
    assert "serves only those who have a key" in shown.err
    assert "serves only those who have a key" not in ran(capsys, "create", "other").err


def test_a_key_has_what_was_asked_for(capsys):
    made = json.loads(
        ran(
            capsys,
            *("create", "ci", "--scope", "write", "--collections", "team-*, docs", "--expires", "90d", "--rate", "20"),
            "--json",
        ).out
    )
    (found,) = listed(capsys)
    assert {**found, "secret": made["secret"]} == made
    assert (found["scope"], found["collections"], found["rate"]) == ("write", ["team-*", "docs"], 20)
    ends_s = time.mktime(time.strptime(found["expires_at"], "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
    assert abs(ends_s - time.time() - 90 * 86_400) < 3700
    text = ran(capsys, "list").out
    assert [word in text for word in ("ci", "write", "team-*, docs", "20/s")] == [True] * 4
    assert made["secret"] not in text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["create", "a b"], "cannot be a key's name"),
        (["create", "ci", "--scope", "root"], "'root' is not one of"),
        (["create", "ci", "--collections", "a b"], "is no pattern"),
        (["create", "ci", "--collections", ","], "is no pattern"),
        (["create", "ci", "--collections", "team-*,"], "is no pattern"),
        (["create", "ci", "--expires", "999999w"], "longer than ten years"),
        (["create", "ci", "--expires", "soon"], "no time such as"),
        (["create", "ci", "--expires", "0d"], "no time such as"),
        (["create", "ci", "--rate", "0"], "0 is not in the range"),
        (["revoke", "nobody", "--yes"], "no key 'nobody'"),
        (["rotate", "nobody"], "no key 'nobody'"),
    ],
)
def test_what_cannot_be_is_told_and_nothing_is_made(capsys, arguments, told):
    assert told in ran(capsys, *arguments, code=2).err
    assert listed(capsys) == []


def test_a_name_is_taken_once(capsys):
    ran(capsys, "create", "ci")
    assert "already" in ran(capsys, "create", "ci", code=2).err


def test_a_rotated_key_goes_on_for_a_while(capsys):
    old = parse_key(ran(capsys, "create", "ci", "--expires", "90d").out.strip())
    new = parse_key(ran(capsys, "rotate", "ci", "--grace", "1h").out.strip())
    by_id = {one["id"]: one for one in listed(capsys)}
    assert list(by_id) == [old[0], new[0]]
    assert by_id[old[0]]["expires_at"] < by_id[new[0]]["expires_at"]
    ran(capsys, "rotate", "ci", "--grace", "0")
    assert [one["expired"] for one in listed(capsys)] == [True, True, False]


def test_revoking_asks_and_ends_all_keys_of_a_name_or_one_of_an_id(capsys):
    ran(capsys, "create", "ci")
    ran(capsys, "rotate", "ci")
    first = listed(capsys)[0]["id"]
    ran(capsys, "revoke", first, "--yes")
    assert len(listed(capsys)) == 1
    assert "is revoked" in ran(capsys, "revoke", "ci", "--yes").err
    assert listed(capsys) == []
    assert Path("data", KEYS_FILE).exists()


def test_each_change_is_in_the_audit_log_without_a_secret(capsys):
    secret = ran(capsys, "create", "ci").out.strip().rpartition("_")[2]
    ran(capsys, "rotate", "ci")
    ran(capsys, "revoke", "ci", "--yes")
    text = Path("data", AUDIT_FILE).read_text()
    assert re.findall(r'"event": "(\w+)"', text) == ["key_created", "key_rotated", "key_revoked", "key_revoked"]
    assert secret not in text
