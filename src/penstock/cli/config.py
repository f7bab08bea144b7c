"""``penstock config``: every setting, its effective value and where it comes from."""

from __future__ import annotations

from typing import Any

import click

from penstock.cli.options import Setup, complete, json_option
from penstock.cli.output import print_json
from penstock.cli.schema import Known, known
from penstock.cli.tables import Rows, print_rows
from penstock.cli.terminal import harmless, results
from penstock.cli.values import Value, shown


@click.command("config")
@json_option
@complete
def command(setup: Setup, *, as_json: bool) -> int:
    """Show every setting, its value and where it comes from: flag, environment, file or default."""
    if as_json:
        settings = [_entry(setup, one) for one in known()]
        print_json({"data_dir": str(setup.data_dir), "settings": settings})
        return 0
    rows = [
        [one.yaml, harmless(shown(_value(setup, one), one.spec.unit)), setup.origins[one.yaml], one.spec.env]
        for one in known()
    ]
    console = results()
    print_rows(console, Rows(["setting", "value", "from", "environment"], rows, foldable=frozenset({1, 2})))
    console.print(f"\ndata directory: {harmless(str(setup.data_dir))}")
    return 0


def _value(setup: Setup, one: Known) -> Value:
    value: Value = getattr(getattr(setup.settings, one.section), one.name)
    return value


def _entry(setup: Setup, one: Known) -> dict[str, Any]:
    return {
        "name": one.yaml,
        "env": one.spec.env,
        "env_names": list(one.spec.names),
        "value": shown(_value(setup, one), one.spec.unit) if one.spec.unit != "count" else _value(setup, one),
        "default": shown(one.default, one.spec.unit) if one.spec.unit != "count" else one.default,
        "origin": setup.origins[one.yaml],
        "doc": one.spec.doc,
    }
