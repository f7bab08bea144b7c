"""Embedded Qdrant in a process of its own (DESIGN §2): the binding never releases the interpreter lock.

Enters: the contract's calls (``client``), as frames over a socket pair (``wire``) to the store
process (``process``), which keeps the collections (``shelf``) and talks to the engine (``engine``).
"""
