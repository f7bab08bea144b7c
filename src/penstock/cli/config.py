"""``penstock config``: every setting, its effective value and where it comes from."""

from __future__ import annotations

from typing import Any

import click

from penstock.cli.options import Setup, json_option, with_all_settings
from penstock.cli.setting_values import SettingValue, format_value
from penstock.cli.settings_schema import SettingEntry, setting_entries
from penstock.cli.terminal import print_json, print_table, stdout_console, strip_controls


@click.command("config")
@json_option
@with_all_settings
def command(setup: Setup, *, as_json: bool) -> int:
    """Show every setting, its value and where it comes from: flag, environment, file or default."""
    if as_json:
        settings = [_entry(setup, one) for one in setting_entries()]
        print_json({"data_dir": str(setup.data_dir), "settings": settings})
        return 0
    header = ["setting", "value", "from", "environment"]
    rows = [
        [one.yaml_name, format_value(_value(setup, one), one.spec.unit), setup.origins[one.yaml_name], one.spec.env]
        for one in setting_entries()
    ]
    console = stdout_console()
    print_table(console, header, rows, foldable={"value", "from"})
    console.print(f"\ndata directory: {strip_controls(str(setup.data_dir))}")
    return 0


def _value(setup: Setup, one: SettingEntry) -> SettingValue:
    value: SettingValue = getattr(getattr(setup.settings, one.section), one.name)
    return value


def _entry(setup: Setup, one: SettingEntry) -> dict[str, Any]:
    return {
        "name": one.yaml_name,
        "env": one.spec.env,
        "env_names": list(one.spec.env_names),
        "value": format_value(_value(setup, one), one.spec.unit) if one.spec.unit != "count" else _value(setup, one),
        "default": format_value(one.default, one.spec.unit) if one.spec.unit != "count" else one.default,
        "origin": setup.origins[one.yaml_name],
        "doc": one.spec.doc,
    }
