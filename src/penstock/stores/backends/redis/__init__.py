"""State shared by several servers in Redis: cached vectors (``cache``) and clients' token buckets (``rates``).

Enters: keys and values, amounts of tokens. Leaves: the values that the other servers have stored.
May refuse: everything, at any time and within milliseconds (``Unavailable``). The caller then goes on without it.
"""
