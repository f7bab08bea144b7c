"""The attacks, by the door that they come through."""

from __future__ import annotations

from typing import Final

from bench.hostile.attack import Attack
from bench.hostile.attacks import access, bodies, browser, commands, connections, disks, servers, snapshots, texts

ATTACKS: Final[tuple[Attack, ...]] = (
    *access.ATTACKS,
    *bodies.ATTACKS,
    *texts.ATTACKS,
    *connections.ATTACKS,
    *browser.ATTACKS,
    *commands.ATTACKS,
    *servers.ATTACKS,
    *snapshots.ATTACKS,
    *disks.ATTACKS,
)
