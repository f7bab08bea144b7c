"""``penstock keys``: the API keys of a server."""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import click
from msgspec import to_builtins

from penstock.app.external_backends import build_key_store
from penstock.cli.options import Setup, json_option, with_all_settings
from penstock.cli.sources import confirm, yes_option
from penstock.cli.terminal import print_json, print_table, stderr_console, stdout_console, strip_controls
from penstock.kernel.access import AGE_S_MAX, RATE_MAX, SCOPES, ApiKey, NewKey, Scope, make_key
from penstock.stores.key_store import KeyInfo, KeyRotation, KeyStore, find_keys, utc_rfc3339, with_key, without_keys
from penstock.telemetry.audit_log import AuditLog

_AGE: Final = re.compile(r"([1-9][0-9]{0,5})(m|h|d|w)")
_SECONDS: Final = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
#: How long the former key of a rotation goes on.
GRACE: Final = "1d"
#: A key that ends within so many seconds is shown as ending.
SOON_S: Final = 7 * 86_400


class Age(click.ParamType[int]):
    """A time to come, such as ``90d``; its value is in seconds."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the seconds."""
        if isinstance(value, int):
            return value
        if value == "0":
            return 0
        found = _AGE.fullmatch(str(value))
        if found is None:
            self.fail(f"{str(value)[:40]!r} is no time such as 30m, 12h, 90d or 4w", param, ctx)
        seconds = int(found[1]) * _SECONDS[found[2]]
        if seconds > AGE_S_MAX:
            self.fail(f"{value} is longer than ten years; 0 is for ever", param, ctx)
        return seconds


@click.group("keys")
def keys() -> None:
    """Make, list, revoke and rotate the keys of a server.

    With the first key, the server serves only those who have one. A running server notices each change in a moment.
    Commands on the server's own data directory need no key.
    """


@keys.command("create")
@click.argument("name")
@click.option(
    "--scope",
    type=click.Choice(list(SCOPES)),
    default=Scope.SEARCH.label,
    show_default=True,
    help="search: read. write: also index and delete documents. admin: everything.",
)
@click.option(
    "--collections", metavar="PATTERN,…", default="", help="Only collections of these names, such as 'team-*'."
)
@click.option("--expires", type=Age(), metavar="TIME", default="0", help="End after 90d, 12h, …; by default never.")
@click.option("--rate", type=click.IntRange(1, RATE_MAX), metavar="N", help="Requests a second, if not the server's.")
@json_option
@with_all_settings
async def create(setup: Setup, name: str, *, as_json: bool, **wanted: Any) -> int:
    """Make a key and print it, this one time."""
    now_s = int(time.time())
    template = ApiKey(
        "",
        name,
        "",
        wanted["scope"],
        tuple(part.strip() for part in wanted["collections"].split(",")) if wanted["collections"] else (),
        expires_at=now_s + wanted["expires"] if wanted["expires"] else 0,
        rate=wanted["rate"] or 0,
    )
    new = make_key(template, now_s)
    async with _store(setup) as (store, audit):
        first = not await store.read()
        await store.change(with_key(new.key))
        # At once: a key that was made and not shown is of no use.
        _print_new(new, as_json=as_json)
        audit.act("key_created", **_who(), key=new.key.id, name=name, scope=new.key.scope)
    if first and not as_json:
        stderr_console().print(
            "From now on the server serves only those who have a key; commands on this data directory need none.",
            soft_wrap=True,
        )
    return 0


@keys.command("list")
@json_option
@with_all_settings
async def list_(setup: Setup, *, as_json: bool) -> int:
    """List the keys; their secrets are not kept."""
    async with _store(setup) as (store, _):
        there = await store.read()
    now_s = time.time()
    if as_json:
        print_json({"keys": [to_builtins(KeyInfo.of(key, now_s)) for key in there or ()]})
    elif not there:
        stdout_console().print("no keys; `penstock keys create NAME` makes one", soft_wrap=True)
    else:
        header = ["name", "id", "scope", "collections", "rate", "created", "ends"]
        print_table(stdout_console(), header, [_row(key, now_s) for key in there], foldable={"collections"})
    return 0


@keys.command("revoke")
@click.argument("name")
@yes_option
@with_all_settings
async def revoke(setup: Setup, name: str, *, yes: bool) -> int:
    """End the keys of a name, or the one of an id, at once."""
    async with _store(setup) as (store, audit):
        found = find_keys(await store.read() or [], name)
        ids = ", ".join(key.id for key in found)
        confirm(f"Revoke {name} ({ids})?", yes=yes)
        await store.change(without_keys(name))
        for key in found:
            audit.act("key_revoked", **_who(), key=key.id, name=key.name)
    stderr_console().print(f"{strip_controls(name)} ({ids}) is revoked", soft_wrap=True)
    return 0


@keys.command("rotate")
@click.argument("name")
@click.option(
    "--grace",
    type=Age(),
    metavar="TIME",
    default=GRACE,
    show_default=True,
    help="The former key goes on so long; 0: not.",
)
@json_option
@with_all_settings
async def rotate(setup: Setup, name: str, grace: int, *, as_json: bool) -> int:
    """Make a new key like another and print it; the former one goes on for a while."""
    rotation = KeyRotation(name, int(time.time()), grace)
    async with _store(setup) as (store, audit):
        await store.change(rotation)
        if (new := rotation.new) is not None:
            _print_new(new, as_json=as_json)
            former = [key.id for key in rotation.former]
            audit.act("key_rotated", **_who(), key=new.key.id, name=new.key.name, former=former)
    return 0


@asynccontextmanager
async def _store(setup: Setup) -> AsyncIterator[tuple[KeyStore, AuditLog]]:
    store = build_key_store(setup.settings, setup.data_dir)
    # The server puts a grown file aside; of two that do so one would be one too many.
    audit = AuditLog(setup.data_dir, rotates=False)
    try:
        yield store, audit
    finally:
        audit.close()
        await store.close()


def _who() -> dict[str, Any]:
    return {"by": "command", "user": os.environ.get("USER", ""), "uid": os.getuid()}


def _print_new(new: NewKey, *, as_json: bool) -> None:
    """Print a key alone on standard output, so that a script can take it."""
    if as_json:
        print_json({**to_builtins(KeyInfo.of(new.key, time.time())), "secret": new.text})
        return
    click.echo(new.text)
    stderr_console().print("Keep it now: it is not shown again. Send it as `Authorization: Bearer`.", soft_wrap=True)


def _row(key: ApiKey, now_s: float) -> list[str]:
    ends = "never" if not key.expires_at else utc_rfc3339(key.expires_at)[:16].replace("T", " ")
    if key.expired(now_s):
        ends += " (over)"
    elif key.expires_at and key.expires_at - now_s < SOON_S:
        ends += " (soon)"
    rate = f"{key.rate:g}/s" if key.rate else ""
    return [
        key.name,
        key.id,
        key.scope,
        ", ".join(key.collections) or "all",
        rate,
        utc_rfc3339(key.created_at)[:10],
        ends,
    ]
