"""The store process, but that the engine aborts over the collection ``bad``: ``crashing_store.py FILE OPENING …``.

It does so as long as FILE exists: when the collection is opened if OPENING is 1, else when its documents are listed.
"""

import os
import sys
from pathlib import Path
from typing import Any

from penstock.stores.backends.edge import process
from penstock.stores.backends.edge.engine import Shard


def main() -> None:
    """Serve until the engine is asked for the collection."""
    file, opening = Path(sys.argv.pop(1)), sys.argv.pop(1) == "1"
    load, heads = Shard.load, Shard.list_documents

    def dying_load(path: Path, *rest: Any) -> Shard:
        shard = load(path, *rest)
        shard.bad = path.parent.name == "bad"  # type: ignore[attr-defined]
        if opening and shard.bad and file.exists():  # type: ignore[attr-defined]
            os.abort()
        return shard

    def dying_heads(shard: Shard, *rest: Any) -> Any:
        if not opening and getattr(shard, "bad", False) and file.exists():
            os.abort()
        return heads(shard, *rest)

    Shard.load = staticmethod(dying_load)  # type: ignore[method-assign, assignment]
    Shard.list_documents = dying_heads  # type: ignore[method-assign]
    process.main()


if __name__ == "__main__":
    main()
