"""``docs/client.md`` names every method, option and error of the client, and its examples read as Python."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

import penstock.client
from penstock.client import AsyncClient, CallOptions, Client, PenstockError

TEXT = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_needs_only_names_that_there_are(example):
    compile(example, "docs/client.md", "exec")
    for names in re.findall(r"from penstock\.client import (.*)", example):
        assert set(names.split(", ")) <= set(penstock.client.__all__)


def test_every_method_is_named():
    methods = {name for name in vars(Client) | vars(AsyncClient) if not name.startswith("_")} - {"close"}
    assert [name for name in sorted(methods | {"with_options"}) if f"`{name}`" not in TEXT] == []


def test_every_option_and_error_is_named():
    errors = [
        name
        for name in penstock.client.__all__
        if isinstance(one := getattr(penstock.client, name), type) and issubclass(one, PenstockError)
    ]
    names = [*errors, *(field.name for field in fields(CallOptions))]
    assert [name for name in names if f"`{name}`" not in TEXT] == []
