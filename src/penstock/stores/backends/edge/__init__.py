"""Embedded Qdrant in its own process (DESIGN §2), because the binding never releases the interpreter lock.

Enters: the contract's calls (``store``), as frames over a socket pair (``ipc``, ``process_client``) to the store
process (``process``). There ``collection_registry`` keeps the collections and ``engine`` talks to Qdrant's engine.
"""
