"""Dashboard of a running server: renders its lines for a width and a height. Pure.

Every line has a rank. Where the screen is too low, the lines of the highest rank go first, the lowest of them first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from rich.text import Text

from penstock.cli.status_rates import ServerRates, StatusHistory, TopicRates, total
from penstock.cli.terminal import strip_controls
from penstock.cli.text_charts import UNKNOWN, bar, capped, compact, megabytes, percent, sparkline
from penstock.cli.throughput import format_duration
from penstock.client import BreakerSummary, LadderRung, PoolSummary, Status, TopicSummary

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


@dataclass(frozen=True, slots=True)
class RankedLine:
    """A line of the dashboard and its rank."""

    text: Text
    rank: int = CALM


@dataclass(frozen=True, slots=True)
class DrawTime:
    """Time at which a page is drawn.

    Attributes:
        now_s: On the loop's clock.
        wall_time: On the wall's, in the local time zone.
    """

    now_s: float
    wall_time: datetime


def render_page(watch: StatusHistory, moment: DrawTime, width: int, height: int | None = None) -> list[Text]:
    """Return the lines of the page, none wider than ``width`` and no more than ``height``.

    Args:
        watch: What is known about the server.
        moment: Now.
        width: Columns of the terminal.
        height: Its rows; ``None`` for as many as there are.
    """
    silent_s = watch.silent_s(moment.now_s)
    head = [_title(watch), *_silence(watch, moment, silent_s)]
    body = list(_body(watch.sample.snapshot, watch, min(width, WIDTH_MAX))) if watch.sample else []
    if silent_s is not None:
        # Old values are still of use, but must not look like new ones.
        body = [RankedLine(Text(line.text.plain, "dim"), line.rank) for line in body]
    elif watch.sample is None:
        head.append(RankedLine(Text("Waiting for the first answer …", "dim"), ALWAYS))
    lines, hidden = _fitted([*head, *body], height)
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    if height is not None and lines:
        hint = f"{hidden} lines hidden, q quits" if hidden else "q quits"
        lines[0] = _with_hint(lines[0], hint, width)
    return lines


def _fitted(lines: Sequence[RankedLine], height: int | None) -> tuple[list[Text], int]:
    """Return what fits, and how many lines with something in them do not."""
    kept = list(lines)
    dropped = [kept.pop(_least(kept)) for _ in range(len(kept) - max(1, height or len(kept)))]
    return [line.text for line in kept], sum(1 for line in dropped if line.rank != SPACE)


def _least(lines: Sequence[RankedLine]) -> int:
    return max(range(len(lines)), key=lambda place: (lines[place].rank, place))


def _with_hint(line: Text, hint: str, width: int) -> Text:
    gap = width - line.cell_len - len(hint)
    return Text.assemble(line, " " * gap, (hint, "dim")) if gap >= 2 else line


def _title(watch: StatusHistory) -> RankedLine:
    text = Text("penstock", "bold")
    if watch.sample:
        seen = watch.sample.snapshot
        text.append(f" {strip_controls(seen.version)}  up {format_duration(seen.uptime_s)}", "not bold")
    return RankedLine(text.append(f"  {strip_controls(watch.url)}", "not bold cyan"), ALWAYS)


def _silence(watch: StatusHistory, moment: DrawTime, silent_s: float | None) -> Iterator[RankedLine]:
    if silent_s is None:
        return
    since = moment.wall_time - timedelta(seconds=silent_s)
    yield RankedLine(Text(f"no status since {since:%H:%M:%S} ({format_duration(silent_s)})", "bold red"), ALWAYS)
    if watch.last_error:
        yield RankedLine(Text(strip_controls(watch.last_error), "red"), ALWAYS)


def _body(seen: Status, watch: StatusHistory, width: int) -> Iterator[RankedLine]:
    yield _state(seen)
    for alert in seen.alerts:
        if alert.active:
            style = "bold red" if alert.severity == "critical" else "yellow"
            words = strip_controls(f"{alert.severity} {alert.name} {alert.subject}: {alert.detail}")
            yield _labelled("alert", Text(words, style), URGENT)
    yield from _traffic(watch, width)
    if seen.ladder:
        yield _labelled("ladder", _joined([_stand(one) for one in seen.ladder]), URGENT)
    if seen.topics:
        yield RankedLine(Text(), SPACE)
        yield from _topics(seen.topics, watch.rates.topics, width)
    yield RankedLine(Text(), SPACE)
    yield from _resources(seen, watch.rates, width)


def _state(seen: Status) -> RankedLine:
    why = strip_controls("; ".join(seen.reasons)) or "no reason given"
    text = Text("ready", "green") if seen.ready else Text(f"not ready: {why}", "bold red")
    text.append(f"  in flight {seen.in_flight:,}", "default not bold")
    if seen.traffic:
        most = max(seen.in_flight, seen.traffic.in_flight_max)
        text.append(f" (recently at most {most:,})", "default not bold")
    return RankedLine(text, ALWAYS)


def _traffic(watch: StatusHistory, width: int) -> Iterator[RankedLine]:
    rates = watch.rates
    room = max(0, min(_SPARK_MAX, width - _LABEL - _FIGURE - 30))
    good = _rate(rates.goodput, "bold green").append(sparkline(watch.goodput, room), "not bold green")
    if any(watch.goodput):
        most = max(one for one in watch.goodput if one is not None)
        good.append(f" most {compact(most)}/s", "not bold default")
    yield _labelled("goodput", good, ALWAYS)
    refused = _rate(total(rates.refused), "bold yellow")
    if any(watch.refused):
        # The reasons say more than the past.
        refused.append(sparkline(watch.refused, room // 2) + "  ", "not bold yellow")
    yield _labelled("refused", refused.append(_reasons(rates.refused), "not bold default"), URGENT)
    degraded = _rate(total(rates.degraded), "yellow")
    yield _labelled("degraded", degraded.append(_reasons(rates.degraded), "default"), BUSY)
    lost = {"too late": rates.too_late, "client gone": rates.client_gone, "cut off": rates.cut_off}
    parts = [Text(f"{name} {compact(rate)}/s", "yellow" if rate else "default") for name, rate in lost.items()]
    yield _labelled("lost", _joined(parts), BUSY)


def _rate(value: float | None, style: str) -> Text:
    return Text(f"{compact(value) + '/s':<{_FIGURE}}", style if value else "default")


def _reasons(by_reason: Mapping[str, float] | None) -> str:
    ordered = sorted((by_reason or {}).items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{strip_controls(reason)} {compact(rate)}" for reason, rate in ordered)


def _stand(one: LadderRung) -> Text:
    words = _RUNGS.get(one.rung, strip_controls(one.rung).replace("_", " "))
    severity = _SEVERITIES[max(0, min(one.level, len(_SEVERITIES) - 1))]
    return Text(f"{strip_controls(one.criticality)} ").append(words, severity)


def _topics(topics: Sequence[TopicSummary], flows: Mapping[str, TopicRates], width: int) -> Iterator[RankedLine]:
    levels = [_level(one) for one in topics]
    level_width = max(len("level"), *(len(level) for level in levels))
    name_width = min(_NAME_MAX, max(len("topic"), *(len(one.name) for one in topics)))
    columns, bar_width = _columns(width - name_width - level_width - 2)
    titles = "".join(f" {column.title:>{column.width}}" for column in columns)
    yield RankedLine(Text(f"{'topic':<{name_width}} {'fill':<{bar_width}}{titles} level", "bold"), BUSY)
    for topic, level in zip(topics, levels, strict=True):
        flow = flows.get(topic.name, TopicRates())
        style = _LEVELS.get(topic.level, "default")
        line = Text(f"{capped(strip_controls(topic.name), name_width):<{name_width}} ")
        line.append(bar(topic.waiting, topic.capacity, bar_width), style)
        for column in columns:
            cell = column.cell(topic, flow)
            line.append(f" {cell:>{column.width}}", "yellow" if column.loss and cell not in _NOTHING else "default")
        line.append(f" {level}", "yellow" if topic.congested and topic.level == "calm" else style)
        yield RankedLine(line, _topic_rank(topic, flow))


def _columns(room: int) -> tuple[list[_Column], int]:
    """Return the columns that fit beside the shortest bar, and how long the bar may be."""
    kept = list(_COLUMNS)
    while kept and sum(column.width + 1 for column in kept) + _BAR_MIN > room:
        kept.remove(max(kept, key=lambda column: column.rank))
    left = room - sum(column.width + 1 for column in kept)
    return kept, max(_BAR_MIN, min(_BAR_MAX, left))


def _level(topic: TopicSummary) -> str:
    level = strip_controls(topic.level)
    if not topic.congested:
        return level
    return "congested" if level == "calm" else f"{level[:4]}+cong"


def _topic_rank(topic: TopicSummary, flow: TopicRates) -> int:
    if topic.level != "calm" or topic.congested:
        return URGENT
    return BUSY if topic.waiting or topic.running or flow.offered or flow.refused else IDLE


@dataclass(frozen=True, slots=True)
class _Column:
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


def _resources(seen: Status, rates: ServerRates, width: int) -> Iterator[RankedLine]:
    yield from _grid("pools", list(_pools(seen.pools)), width, STATE)
    closed = all(one.state == "closed" for one in seen.breakers)
    yield from _grid("breakers", [_breaker(one) for one in seen.breakers], width, CALM if closed else URGENT)
    if seen.memory:
        one = seen.memory
        text = Text(bar(one.used_bytes, one.limit_bytes, _CELL_BAR * 2), _LEVELS.get(one.level, "default"))
        of = f" {megabytes(one.used_bytes)} of {megabytes(one.limit_bytes)} ({strip_controls(one.source)}), "
        text.append(of, "default not bold").append(strip_controls(one.level))
        yield _labelled("memory", text, STATE if one.level == "calm" else URGENT)
    if seen.process:
        lag_ms = seen.process.loop_lag_ms_max
        late = lag_ms >= LOOP_LAG_MS_WARN
        text = Text(f"loop lag at most {lag_ms:,.0f} ms", "yellow" if late else "default")
        text.append(f", {seen.process.tasks:,} tasks, {seen.process.threads:,} threads", "default")
        yield _labelled("process", text, URGENT if late else STATE)
    for place, cache in enumerate(seen.caches):
        lookups = cache.hits + cache.misses
        hits = (
            f"{percent(rates.hits.get(cache.name)):>4} hits now, {percent(cache.hits / lookups if lookups else None)}"
        )
        text = Text(f"{capped(strip_controls(cache.name), 12):<12} {hits} in all, ")
        text.append(f"{cache.entries:,} entries, {megabytes(cache.bytes)}")
        yield _labelled("" if place else "caches", text, CALM)


def _pools(pools: Sequence[PoolSummary]) -> Iterator[Text]:
    figures = [f"{one.active}/{one.limit}" for one in pools]
    room = _CELL - _CELL_BAR - 2 - max((len(one) for one in figures), default=0)
    for one, figure in zip(pools, figures, strict=True):
        full = one.limit > 0 and one.active >= one.limit
        text = Text(f"{capped(strip_controls(one.name), room):<{room}} ")
        text.append(bar(one.active, one.limit, _CELL_BAR), "yellow" if full else "green")
        yield text.append(f" {figure}")


def _breaker(one: BreakerSummary) -> Text:
    state = strip_controls(one.state)
    if one.state == "open":
        state += f" {format_duration(one.retry_after_s)}"
    name = capped(strip_controls(one.dependency), max(4, _CELL - 1 - len(state)))
    return Text(f"{name} ").append(state, _STATES.get(one.state, "default"))


def _grid(label: str, cells: Sequence[Text], width: int, rank: int) -> Iterator[RankedLine]:
    """Yield cells side by side, as many in a row as there is room for."""
    in_row = max(1, (width - _LABEL + 2) // (_CELL + 2))
    for start in range(0, len(cells), in_row):
        row = Text()
        for cell in cells[start : start + in_row]:
            cell.truncate(_CELL, pad=True)
            row.append_text(cell).append("  ")
        row.rstrip()
        yield _labelled("" if start else label, row, rank)


def _joined(parts: Sequence[Text]) -> Text:
    return Text("   ").join(parts)


def _labelled(label: str, text: Text, rank: int) -> RankedLine:
    return RankedLine(Text(f"{label:<{_LABEL}}", "bold").append_text(Text("", "not bold").append_text(text)), rank)
