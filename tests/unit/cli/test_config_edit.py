"""Edits of other programs' files: our entry, and nothing else."""

import json
import tomllib

import pytest

from penstock.cli.config_edit import edit_json, edit_toml
from penstock.kernel.errors import Invalid

ENTRY = {"command": "penstock", "args": ["mcp", 'a "b"\\c\n']}


def test_a_new_file_has_our_entry_alone_and_without_it_nothing():
    text = edit_json("", "mcpServers", "penstock", ENTRY)
    assert json.loads(text) == {"mcpServers": {"penstock": ENTRY}}
    assert edit_json(text, "mcpServers", "penstock", None) == ""


def test_everything_else_in_a_file_stays_in_its_order_and_indentation():
    text = '{\n\t"z": 1.0,\n\t"mcpServers": {"other": {"url": "é"}},\n\t"a": null\n}\n'
    edited = edit_json(text, "mcpServers", "penstock", ENTRY)
    assert list(json.loads(edited)) == ["z", "mcpServers", "a"]
    assert list(json.loads(edited)["mcpServers"]) == ["other", "penstock"]
    assert "\n\t" in edited
    assert "é" in edited
    assert json.loads(edit_json(edited, "mcpServers", "penstock", None)) == json.loads(text)


def test_an_edit_that_changes_nothing_leaves_every_character():
    text = '{"mcpServers":   {"penstock": {"url": "u"}}}'
    assert edit_json(text, "mcpServers", "penstock", {"url": "u"}) == text
    assert edit_json(text, "mcpServers", "absent", None) == text


def test_a_list_beside_is_extended_once():
    beside = {"inputs": [{"id": "k"}]}
    text = edit_json('{"inputs": [{"id": "x"}]}', "servers", "penstock", ENTRY, beside)
    assert json.loads(text)["inputs"] == [{"id": "x"}, {"id": "k"}]
    assert edit_json(text, "servers", "penstock", ENTRY, beside) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{\n  // mine\n  "a": 1\n}', "comments"),
        ('{"a": 1,}', "trailing commas"),
        ("[1]", "no object"),
        ('{"mcpServers": []}', "`mcpServers` is no object"),
        ("nonsense", "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
    ids=["comments", "commas", "list", "container", "junk", "nested"],
)
def test_what_would_be_lost_is_refused(text, reason):
    with pytest.raises(Invalid, match=reason):
        edit_json(text, "mcpServers", "penstock", ENTRY)


TOML = """# mine
model = "x" # why

[mcp_servers.other]
command = "o"

[mcp_servers.other.env]
A = "b"

# of the terminal
[tui]
t = 1
"""


def test_a_table_is_put_in_and_taken_out_with_all_comments_kept():
    edited = edit_toml(TOML, "mcp_servers", "penstock", ENTRY)
    assert edited.startswith(TOML)
    assert tomllib.loads(edited)["mcp_servers"]["penstock"] == ENTRY
    assert edit_toml(edited, "mcp_servers", "penstock", ENTRY) == edited
    assert edit_toml(edited, "mcp_servers", "penstock", None) == TOML


def test_a_table_in_the_middle_is_replaced_with_the_tables_in_it():
    there = '[mcp_servers."penstock"]\nurl = "old"\n[mcp_servers.penstock.env]\nX = "y"\n\n'
    edited = edit_toml(TOML.replace("# of", there + "# of"), "mcp_servers", "penstock", ENTRY)
    assert tomllib.loads(edited)["mcp_servers"]["penstock"] == ENTRY
    assert "# of the terminal\n[tui]" in edited
    assert "old" not in edited
    assert edit_toml("", "mcp_servers", "penstock", ENTRY).startswith("[mcp_servers.penstock]\n")
    assert edit_toml(edit_toml("", "mcp_servers", "penstock", ENTRY), "mcp_servers", "penstock", None) == ""


@pytest.mark.parametrize(
    "text",
    [
        'mcp_servers.penstock.url = "x"\n',
        'mcp_servers = { penstock = { url = "x" } }\n',
        '[mcp_servers.penstock]\nurl = "x"\ntext = """\n[other]\n"""\n',
        "not = = toml",
    ],
)
def test_a_table_in_another_form_is_refused(text):
    with pytest.raises(Invalid):
        edit_toml(text, "mcp_servers", "penstock", ENTRY)
