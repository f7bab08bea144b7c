"""Other stores, each in a process of its own, behind one small interface: :mod:`bench.peers.contract`.

``python -m bench.peers.serve NAME`` is a :mod:`bench.worker` that fills one of them with a corpus and measures it.
"""
