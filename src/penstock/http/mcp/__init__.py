"""MCP for agents at ``/mcp``: streamable HTTP without sessions, in both eras of the protocol, by the official SDK.

Enters: JSON-RPC messages behind the gate. Leaves: answers of tools, as records and as text.
May refuse: messages that are too large; what a tool refuses is its answer, with a code and a time.
Read next: :mod:`penstock.http.mcp.endpoint`, then :mod:`penstock.http.mcp.tools`.
"""
