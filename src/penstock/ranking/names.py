"""Words of file names in a query: ``radix tree matching`` names ``tree.go``. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from typing import Final, NamedTuple

#: Words taken from one query.
WORDS_MAX: Final = 64
#: Queries and paths whose words are cached.
CACHED_MAX: Final = 16_384
#: The folder's share of what the file's own name says.
FOLDER_SHARE: Final = 0.5
#: Initials of so many words are looked for: ``server-sent events`` is ``sse``.
INITIALS_MAX: Final = 4

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\dA-Za-z_]+")
#: Endings of derived words, the longer ones first: ``router``, ``routes`` and ``routing`` have one root. A stemmer that
#: keeps agents apart from actions (Snowball's) finds fewer files.
_ENDINGS: Final = tuple(
    """
    izations ization izers izing izer izes ized ations ation ators ating ator ates ated ize ate
    ions ings ers ors ion ing er or ed es s e y
    """.split()  # noqa: SIM905 - a list of endings, not a column of quotes
)
_ROOT_MIN: Final = 3
_STOP_WORDS: Final = frozenset(
    """
    a an the of in on for to and or is are how does do what where which with from by into at as it its be that this
    when can
    """.split()  # noqa: SIM905 - as above
)
#: Names that say nothing of a file's content; its folder's name stands for them.
_GENERIC_NAMES: Final = frozenset({"__init__", "index", "init", "lib", "main", "mod"})


@lru_cache(maxsize=CACHED_MAX)
def word_root(word: str) -> str:
    """Return a word in lower case without the ending that makes an agent, an action or a plural of it."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _ROOT_MIN:
            word = word[: -len(ending)]
            break
    return word[:-1] if len(word) > _ROOT_MIN and word[-1] == word[-2] else word


@lru_cache(maxsize=64)
def parse_query_words(query: str) -> dict[str, frozenset[str]]:
    """Return what the words of names may be of a query's, by word and by root.

    A word stands for its root; what a name joins or shortens (``threadpool``, ``sse``) for the roots of those words.
    Stop words are left out.

    Bounds: ``WORDS_MAX`` words; those of the last 64 queries are cached.
    """
    words = [found[0].lower() for found in islice(_WORD.finditer(query), WORDS_MAX)]
    roots = [word_root(word) if word not in _STOP_WORDS and len(word) > 1 else "" for word in words]
    meanings = {root: frozenset([root]) for root in roots if root}
    for begin in range(len(words)):
        for end in range(begin + 2, min(begin + INITIALS_MAX, len(words)) + 1):
            part = words[begin:end]
            named = frozenset(root for root in roots[begin:end] if root)
            if named:
                meanings.setdefault("".join([word[0] for word in part]), named)
                if len(part) == 2:
                    meanings.setdefault("".join(part), named)
                    meanings.setdefault(word_root("".join(part)), named)
    return meanings


@lru_cache(maxsize=CACHED_MAX)
def _name_words(path: str) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """Return the words, each with its root, of a file's name without its extension, and of its folder's name."""
    *folders, name = path.rsplit("/", 2)[-2:]
    stem = name.rpartition(".")[0] or name
    own, folder = (
        tuple((word, word_root(word)) for word in map(str.lower, _WORD.findall(part)))
        for part in (stem, folders[0] if folders else "")
    )
    return (own + folder, ()) if stem.lower() in _GENERIC_NAMES else (own, folder)


class NameMatch(NamedTuple):
    """Match of a file's name with a query.

    Attributes:
        share: Share of the query's words that its name or, counting half, its folder's name holds, 0 to 1.
        whole: Whether the query holds every word of its name.
    """

    share: float
    whole: bool


def match_names(query: str, paths: Iterable[str]) -> dict[str, NameMatch]:
    """Match a query with the names of the files found for it, by path.

    A word counts by its rarity among the files: ``1 - 1/2 · log(files with it + 1) / log(files + 1)``.
    What the files have in common, such as the project's name, tells them apart less.
    """
    meanings, matched, nothing = parse_query_words(query), {}, frozenset[str]()
    counts = {root: 0 for root, named in meanings.items() if root in named}
    for path in paths:
        own, folder = _name_words(path)
        named = [meanings.get(root) or meanings.get(word) or nothing for word, root in own]
        around = [meanings.get(root) or meanings.get(word) or nothing for word, root in folder]
        of_name, of_folder = nothing.union(*named), nothing.union(*around)
        matched[path] = of_name, of_folder - of_name, bool(named) and all(named)
        for root in of_name | of_folder:
            counts[root] += 1
    spread = math.log(len(matched) + 1) or 1.0
    rarity = {root: 1 - 0.5 * math.log(count + 1) / spread for root, count in counts.items()}
    total = sum(rarity.values()) or 1.0

    def said(roots: Iterable[str]) -> float:
        return sum([rarity[root] for root in roots]) / total

    return {
        path: NameMatch(said(of_name) + FOLDER_SHARE * said(around) if of_name or around else 0.0, whole)
        for path, (of_name, around, whole) in matched.items()
    }
