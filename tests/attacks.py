"""Attacks on regular expressions: texts made of a pattern's own parts, on which a backtracking engine might never end.

An attack is a text that a pattern nearly matches: a beginning, a part of a match many times over, a bad end.
An expression that is slower than linear shows it on one of them when the number of repetitions grows.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

Text: TypeAlias = Any
Use: TypeAlias = Callable[[Text], object]

SAMPLES: Final = 16
PUMPS_MAX: Final = 60
PUMP_CHARS_MAX: Final = 24
#: Characters of the texts, each tried only where the ones before were quick. Exponential growth shows in the short
#: ones, where any time that can be measured is too much, quadratic growth in the long one.
SHORT: Final = (8, 12, 16, 20, 24, 32, 64, 128, 256)
LONG: Final = 20_000
#: A linear search of the long text takes less.
SUSPICIOUS_S: Final = 0.004
#: How often a suspicious text is doubled, and by how much its time may grow each time.
DOUBLINGS: Final = 2
GROWTH_MAX: Final = 3.0
#: Seconds of the processor that no linear search takes.
SLOW_S: Final = 0.2
_ENDS: Final = ("", "\x00", "\n", "b!", "é")
_ALPHABET: Final = "aA0_ \t-.:/<[(`é!=\n"


@dataclass(frozen=True)
class Attack:
    beginning: str
    pump: str
    end: str

    def text(self, repetitions: int) -> str:
        return self.beginning + self.pump * repetitions + self.end


def growth(pattern: re.Pattern[Any]) -> Attack | None:
    """Return an attack on which the pattern's time grows faster than the text, `None` where there is none."""
    uses = (pattern.findall, pattern.fullmatch)
    binary = isinstance(pattern.pattern, bytes)
    for attack in attacks(pattern):
        for use in uses:
            # Twice: what slows down once may be the machine.
            if _is_slow(use, attack, binary=binary) and _is_slow(use, attack, binary=binary):
                return attack
    return None


def attacks(pattern: re.Pattern[Any]) -> list[Attack]:
    """Return attacks made of the pattern's own literals and classes; the same ones each time."""
    source = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    tree = re._parser.parse(source, pattern.flags)
    chance = random.Random(source)
    samples = {_Sampler(chance).sample(tree) for _ in range(SAMPLES)}
    found: dict[Attack, None] = {}
    for sample in sorted(samples):
        found |= dict.fromkeys(_pumped(sample + sample, chance))
    letters = sorted({*"".join(samples), *_ALPHABET})
    pairs = [one + other for one in letters for other in letters]
    for pump in [*letters, *chance.sample(pairs, min(len(pairs), PUMPS_MAX))]:
        found |= dict.fromkeys(Attack("", pump, end) for end in _ENDS)
    return list(found)


def _pumped(sample: str, chance: random.Random) -> Iterator[Attack]:
    half = len(sample) // 2
    ranges = [
        (start, end)
        for start in range(len(sample))
        for end in range(start + 1, min(start + PUMP_CHARS_MAX, len(sample)) + 1)
    ]
    # A beginning many times over: the engine starts again at each.
    yield from (Attack("", sample[:end], end_) for end in range(1, half + 1) for end_ in ("", "b!"))
    for start, end in chance.sample(ranges, min(len(ranges), PUMPS_MAX // 4)):
        beginning = sample[: chance.choice((0, start, start))]
        yield Attack(beginning, sample[start:end], chance.choice(_ENDS))
        yield Attack(beginning, sample[start:end], "b!")


def _is_slow(use: Use, attack: Attack, *, binary: bool) -> bool:
    for characters in SHORT:
        if _best(use, attack, characters, binary=binary) > SUSPICIOUS_S:
            return True
    seconds = _best(use, attack, LONG, binary=binary)
    return seconds >= SLOW_S or (seconds > SUSPICIOUS_S and _grows(use, attack, seconds, binary=binary))


def _grows(use: Use, attack: Attack, before: float, *, binary: bool) -> bool:
    """Tell noise and large constants from growth: each doubling of the text takes more than twice the time."""
    characters = LONG
    for _ in range(DOUBLINGS):
        characters *= 2
        after = _best(use, attack, characters, binary=binary)
        if after >= SLOW_S:
            return True
        if after < GROWTH_MAX * before:
            return False
        before = after
    return True


def _best(use: Use, attack: Attack, characters: int, *, binary: bool) -> float:
    """Return the least of three times, or the first where it is too little to matter or much too long."""
    best = SLOW_S
    for _ in range(3):
        best = min(best, _seconds(use, attack, max(1, characters // len(attack.pump)), binary=binary))
        if not SUSPICIOUS_S < best < SLOW_S:
            break
    return best


def _seconds(use: Use, attack: Attack, repetitions: int, *, binary: bool) -> float:
    text: Text = attack.text(repetitions)
    if binary:
        text = text.encode("latin-1", "replace")
    started = time.thread_time()
    use(text)
    return time.thread_time() - started


class _Sampler:
    """Draws a text that a pattern matches, look-arounds left out of account."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._groups: dict[int, str] = {}

    def sample(self, tree: Any) -> str:
        return "".join(self._node(str(operator), argument) for operator, argument in tree)

    def _node(self, operator: str, argument: Any) -> str:  # noqa: C901, PLR0911 - one case for each kind of node
        match operator:
            case "LITERAL":
                return chr(argument)
            case "NOT_LITERAL":
                return self._one_of([("NEGATE", None), ("LITERAL", argument)])
            case "IN":
                return self._one_of([(str(kind), value) for kind, value in argument])
            case "ANY":
                return self._chance.choice("a ")
            case "BRANCH":
                return self.sample(self._chance.choice(argument[1]))
            case "SUBPATTERN":
                group, *_, inner = argument
                text = self.sample(inner)
                self._groups[group] = text
                return text
            case "ATOMIC_GROUP":
                return self.sample(argument)
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                least, most, inner = argument
                count = min(most, max(1, least) + self._chance.randrange(2))
                return "".join(self.sample(inner) for _ in range(count))
            case "GROUPREF":
                return self._groups.get(argument, "")
            case "ASSERT":
                return self.sample(argument[1]) if argument[0] > 0 else ""
            case "ASSERT_NOT" | "AT":
                return ""
        raise NotImplementedError(operator)

    def _one_of(self, members: list[tuple[str, Any]]) -> str:
        negated = ("NEGATE", None) in members
        named = [value for kind, value in members if kind == "LITERAL"]
        for kind, value in members:
            if kind == "RANGE":
                named += value
        candidates = {*map(ord, _ALPHABET), *named, *(code + 1 for code in named)}
        usable = sorted(code for code in candidates if code < 0x110000 and _holds(members, chr(code)) != negated)
        return chr(self._chance.choice(usable)) if usable else ""


_CATEGORIES: Final[dict[str, Callable[[str], bool]]] = {
    "DIGIT": str.isdecimal,
    "SPACE": str.isspace,
    "WORD": lambda one: one.isalnum() or one == "_",
}


def _holds(members: list[tuple[str, Any]], one: str) -> bool:
    for kind, value in members:
        if kind == "LITERAL" and value == ord(one):
            return True
        if kind == "RANGE" and value[0] <= ord(one) <= value[1]:
            return True
        if kind == "CATEGORY":
            _, *negated, name = str(value).split("_")
            if _CATEGORIES[name](one) is not bool(negated):
                return True
    return False
