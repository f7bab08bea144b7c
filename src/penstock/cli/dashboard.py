"""Dashboard of a running server: renders its lines for a width and a height. Pure.

Every line has a rank. Where the screen is too low, the lines of the highest rank go first, the lowest of them first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from rich.text import Text

from penstock.cli.status_rates import ServerRates, StatusHistory, TopicRates, total
from penstock.cli.terminal import strip_controls
from penstock.cli.text_charts import UNKNOWN, bar, capped, compact, format_duration, megabytes, percent, sparkline
from penstock.client import BreakerSummary, PoolSummary, Status, TopicSummary

#: A line longer than this is hard to follow, however wide the terminal is.
WIDTH_MAX: Final = 160

#: An event loop that is so late is worth a look.
LOOP_LAG_MS_WARN: Final = 100.0

_LABEL: Final = 10
_NAME_MAX: Final = 18
_CELL: Final = 24
_CELL_BAR: Final = 6
_BAR_MIN, _BAR_MAX = 4, 24
_SPARK_MAX: Final = 60
_FIGURE: Final = 9

#: Ranks, from lines that always stay to lines that are dropped first.
ALWAYS, URGENT, BUSY, STATE, CALM, IDLE, SPACE = range(7)

_LEVELS: Final = {"calm": "green", "high": "yellow", "critical": "bold red"}
_STATES: Final = {"closed": "green", "half-open": "yellow", "open": "bold red"}
_RUNGS: Final = {
    "full": "full quality",
    "fewer_candidates": "fewer candidates",
    "no_rerank": "no reranking",
    "one_arm": "one arm",
    "cached_only": "cached only",
    "refuse": "refusing",
}
_SEVERITIES: Final = ("green", "yellow", "yellow", "red", "bold red", "bold red")

Part = str | Text | tuple[str, str]


class RankedLine(NamedTuple):
    """A line of the dashboard and its rank."""

    rank: int
    text: Text


def render_page(
    history: StatusHistory, now_s: float, wall_time: datetime, width: int, height: int | None = None
) -> list[Text]:
    """Return the lines of the page, none wider than ``width`` and no more than ``height``.

    Args:
        history: What is known about the server.
        now_s: Now, on the loop's clock.
        wall_time: Now, in the local time zone.
        width: Columns of the terminal.
        height: Its rows; ``None`` for as many as there are.
    """
    silent_s = history.silent_s(now_s)
    lines = [_title(history)]
    if silent_s is not None:
        since = wall_time - timedelta(seconds=silent_s)
        lines.append(_line(ALWAYS, (f"no status since {since:%H:%M:%S} ({format_duration(silent_s)})", "bold red")))
        if history.last_error:
            lines.append(_line(ALWAYS, (strip_controls(history.last_error), "red")))
    elif history.sample is None:
        lines.append(_line(ALWAYS, ("Waiting for the first answer …", "dim")))
    if history.sample is not None:
        body = _body(history.sample.snapshot, history, min(width, WIDTH_MAX))
        # Old values are still of use, but must not look like new ones.
        lines += body if silent_s is None else (_line(rank, (text.plain, "dim")) for rank, text in body)
    kept, hidden = _fitted(lines, height)
    for text in kept:
        text.truncate(width, overflow="ellipsis")
    if height is not None:
        hint = f"{hidden} lines hidden, q quits" if hidden else "q quits"
        if (gap := width - kept[0].cell_len - len(hint)) >= 2:
            kept[0] = Text.assemble(kept[0], " " * gap, (hint, "dim"))
    return kept


def _fitted(lines: Sequence[RankedLine], height: int | None) -> tuple[list[Text], int]:
    """Return what fits, and how many lines with something in them do not."""
    excess = max(0, len(lines) - max(1, height)) if height is not None else 0
    dropped = set(sorted(range(len(lines)), key=lambda place: (lines[place].rank, place), reverse=True)[:excess])
    kept = [line.text for place, line in enumerate(lines) if place not in dropped]
    return kept, sum(lines[place].rank != SPACE for place in dropped)


def _line(rank: int, *parts: Part) -> RankedLine:
    return RankedLine(rank, Text.assemble(*parts))


def _labelled(rank: int, label: str, *parts: Part) -> RankedLine:
    return _line(rank, (f"{label:<{_LABEL}}", "bold"), *parts)


def _title(history: StatusHistory) -> RankedLine:
    seen = history.sample.snapshot if history.sample else None
    about = f" {strip_controls(seen.version)}  up {format_duration(seen.uptime_s)}" if seen else ""
    return _line(ALWAYS, ("penstock", "bold"), about, (f"  {strip_controls(history.url)}", "cyan"))


def _body(seen: Status, history: StatusHistory, width: int) -> Iterator[RankedLine]:
    yield _state(seen)
    for alert in seen.alerts:
        if alert.active:
            style = "bold red" if alert.severity == "critical" else "yellow"
            words = strip_controls(f"{alert.severity} {alert.name} {alert.subject}: {alert.detail}")
            yield _labelled(URGENT, "alert", (words, style))
    yield from _traffic(history, width)
    if seen.ladder:
        rungs: list[Part] = []
        for one in seen.ladder:
            words = _RUNGS.get(one.rung, strip_controls(one.rung).replace("_", " "))
            severity = _SEVERITIES[max(0, min(one.level, len(_SEVERITIES) - 1))]
            rungs += ["   " if rungs else "", f"{strip_controls(one.criticality)} ", (words, severity)]
        yield _labelled(URGENT, "ladder", *rungs)
    if seen.topics:
        yield _line(SPACE)
        yield from _topics(seen.topics, history.rates.topics, width)
    yield _line(SPACE)
    yield from _resources(seen, history.rates, width)


def _state(seen: Status) -> RankedLine:
    why = strip_controls("; ".join(seen.reasons)) or "no reason given"
    state = ("ready", "green") if seen.ready else (f"not ready: {why}", "bold red")
    most = f" (recently at most {max(seen.in_flight, seen.traffic.in_flight_max):,})" if seen.traffic else ""
    return _line(ALWAYS, state, f"  in flight {seen.in_flight:,}{most}")


def _traffic(history: StatusHistory, width: int) -> Iterator[RankedLine]:
    rates = history.rates
    room = max(0, min(_SPARK_MAX, width - _LABEL - _FIGURE - 30))
    most = max((one for one in history.goodput if one), default=None)
    yield _labelled(
        ALWAYS,
        "goodput",
        _rate(rates.goodput, "bold green"),
        (sparkline(history.goodput, room), "green"),
        f" most {compact(most)}/s" if most else "",
    )
    # The reasons say more than the past.
    past = sparkline(history.refused, room // 2) + "  " if any(history.refused) else ""
    refused = _rate(total(rates.refused), "bold yellow")
    yield _labelled(URGENT, "refused", refused, (past, "yellow"), _reasons(rates.refused))
    yield _labelled(BUSY, "degraded", _rate(total(rates.degraded), "yellow"), _reasons(rates.degraded))
    lost = {"too late": rates.too_late, "client gone": rates.client_gone, "cut off": rates.cut_off}
    parts = [Text(f"{name} {compact(rate)}/s", "yellow" if rate else "") for name, rate in lost.items()]
    yield _labelled(BUSY, "lost", Text("   ").join(parts))


def _rate(value: float | None, style: str) -> Part:
    return f"{compact(value) + '/s':<{_FIGURE}}", style if value else ""


def _reasons(by_reason: Mapping[str, float] | None) -> str:
    ordered = sorted((by_reason or {}).items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{strip_controls(reason)} {compact(rate)}" for reason, rate in ordered)


class _Column(NamedTuple):
    """A column of the topics' table. Where there is no room, the one of the highest rank is dropped first."""

    title: str
    width: int
    rank: int
    cell: Callable[[TopicSummary, TopicRates], str]
    loss: bool = False


_NOTHING: Final = frozenset({"0", UNKNOWN})
_COLUMNS: Final = (
    _Column("wait/cap", 9, 0, lambda t, _: f"{compact(t.waiting)}/{compact(t.capacity)}"),
    _Column("run", 4, 4, lambda t, _: compact(t.running)),
    _Column("offer/s", 7, 3, lambda _, f: compact(f.offered)),
    _Column("answ/s", 6, 1, lambda _, f: compact(f.answered)),
    _Column("drop/s", 6, 5, lambda _, f: compact(f.dropped), loss=True),
    _Column("refus/s", 7, 2, lambda _, f: compact(f.refused), loss=True),
    _Column("failed/s", 8, 6, lambda _, f: compact(f.failed), loss=True),
    _Column("late/s", 6, 8, lambda _, f: compact(f.late), loss=True),
    _Column("blocked", 7, 7, lambda t, _: compact(t.blocked), loss=True),
)


def _topics(topics: Sequence[TopicSummary], flows: Mapping[str, TopicRates], width: int) -> Iterator[RankedLine]:
    levels = [_level(one) for one in topics]
    level_width = max(len("level"), *(len(level) for level in levels))
    name_width = min(_NAME_MAX, max(len("topic"), *(len(one.name) for one in topics)))
    # The columns that fit beside the shortest bar; the bar takes what is left.
    columns, room = list(_COLUMNS), width - name_width - level_width - 2
    while columns and sum(column.width + 1 for column in columns) + _BAR_MIN > room:
        columns.remove(max(columns, key=lambda column: column.rank))
    bar_width = max(_BAR_MIN, min(_BAR_MAX, room - sum(column.width + 1 for column in columns)))
    titles = "".join(f" {column.title:>{column.width}}" for column in columns)
    yield _line(BUSY, (f"{'topic':<{name_width}} {'fill':<{bar_width}}{titles} level", "bold"))
    for topic, level in zip(topics, levels, strict=True):
        flow, style = flows.get(topic.name, TopicRates()), _LEVELS.get(topic.level, "")
        name = f"{capped(strip_controls(topic.name), name_width):<{name_width}} "
        cells = [(column.cell(topic, flow), column) for column in columns]
        figures = [
            (f" {cell:>{one.width}}", "yellow" if one.loss and cell not in _NOTHING else "") for cell, one in cells
        ]
        level_style = "yellow" if topic.congested and topic.level == "calm" else style
        fill = (bar(topic.waiting, topic.capacity, bar_width), style)
        yield _line(_topic_rank(topic, flow), name, fill, *figures, (f" {level}", level_style))


def _level(topic: TopicSummary) -> str:
    level = strip_controls(topic.level)
    if not topic.congested:
        return level
    return "congested" if level == "calm" else f"{level[:4]}+cong"


def _topic_rank(topic: TopicSummary, flow: TopicRates) -> int:
    if topic.level != "calm" or topic.congested:
        return URGENT
    return BUSY if topic.waiting or topic.running or flow.offered or flow.refused else IDLE


def _resources(seen: Status, rates: ServerRates, width: int) -> Iterator[RankedLine]:
    yield from _grid("pools", list(_pools(seen.pools)), width, STATE)
    closed = all(one.state == "closed" for one in seen.breakers)
    yield from _grid("breakers", [_breaker(one) for one in seen.breakers], width, CALM if closed else URGENT)
    if one := seen.memory:
        fill = (bar(one.used_bytes, one.limit_bytes, _CELL_BAR * 2), _LEVELS.get(one.level, ""))
        of = f" {megabytes(one.used_bytes)} of {megabytes(one.limit_bytes)} ({strip_controls(one.source)}), "
        yield _labelled(STATE if one.level == "calm" else URGENT, "memory", fill, of + strip_controls(one.level))
    if process := seen.process:
        late = process.loop_lag_ms_max >= LOOP_LAG_MS_WARN
        lag = (f"loop lag at most {process.loop_lag_ms_max:,.0f} ms", "yellow" if late else "")
        busy = f", {process.tasks:,} tasks, {process.threads:,} threads"
        yield _labelled(URGENT if late else STATE, "process", lag, busy)
    for place, cache in enumerate(seen.caches):
        lookups = cache.hits + cache.misses
        hits = (
            f"{percent(rates.hits.get(cache.name)):>4} hits now, {percent(cache.hits / lookups if lookups else None)}"
        )
        name = f"{capped(strip_controls(cache.name), 12):<12}"
        entries = f"{cache.entries:,} entries, {megabytes(cache.bytes)}"
        yield _labelled(CALM, "" if place else "caches", f"{name} {hits} in all, {entries}")


def _pools(pools: Sequence[PoolSummary]) -> Iterator[Text]:
    figures = [f"{one.active}/{one.limit}" for one in pools]
    room = _CELL - _CELL_BAR - 2 - max((len(one) for one in figures), default=0)
    for one, figure in zip(pools, figures, strict=True):
        style = "yellow" if 0 < one.limit <= one.active else "green"
        name = f"{capped(strip_controls(one.name), room):<{room}} "
        yield Text.assemble(name, (bar(one.active, one.limit, _CELL_BAR), style), f" {figure}")


def _breaker(one: BreakerSummary) -> Text:
    state = strip_controls(one.state) + (f" {format_duration(one.retry_after_s)}" if one.state == "open" else "")
    name = capped(strip_controls(one.dependency), max(4, _CELL - 1 - len(state)))
    return Text.assemble(f"{name} ", (state, _STATES.get(one.state, "")))


def _grid(label: str, cells: Sequence[Text], width: int, rank: int) -> Iterator[RankedLine]:
    """Yield cells side by side, as many in a row as there is room for."""
    in_row = max(1, (width - _LABEL + 2) // (_CELL + 2))
    for start in range(0, len(cells), in_row):
        row = cells[start : start + in_row]
        for cell in row:
            cell.truncate(_CELL, pad=True)
        row[-1].rstrip()
        yield _labelled(rank, "" if start else label, Text("  ").join(row))
