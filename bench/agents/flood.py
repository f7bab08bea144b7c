"""A flooding agent, a process of its own: ``python -m bench.agents.flood PORT ADDRESS``, until its input ends.

It asks as often as it can over many connections, and prints how often it was answered and refused.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from http.client import HTTPConnection, HTTPException
from typing import Final

CONNECTIONS: Final = 32


def flood(port: int, address: str, ended: threading.Event, counts: Counter[str]) -> None:
    """Search on one connection until the end is told, a new query each time."""
    connection, number = HTTPConnection("127.0.0.1", port, timeout=30, source_address=(address, 0)), 0
    head = {"Content-Type": "application/json", "Accept": "application/json"}
    while not ended.is_set():
        number += 1
        query = f"flood {threading.get_ident()} {number}"
        params = {"name": "search", "arguments": {"query": query, "limit": 50}}
        body = json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})
        try:
            connection.request("POST", "/mcp", body, head)
            answer = connection.getresponse()
            told = json.loads(answer.read())
        except (OSError, HTTPException, ValueError):
            connection.close()
            counts["lost"] += 1
            continue
        failed = "error" in told or told["result"].get("isError", False)
        counts["refused" if failed else "answered"] += 1


def main() -> None:
    """Flood until standard input ends."""
    port, address = int(sys.argv[1]), sys.argv[2]
    ended, counts = threading.Event(), Counter[str]()
    threads = [threading.Thread(target=flood, args=(port, address, ended, counts)) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    ended.set()
    for thread in threads:
        thread.join()
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
