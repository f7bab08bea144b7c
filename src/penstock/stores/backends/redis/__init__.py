"""Redis as what several servers share: remembered vectors (``cache``) and clients' rates (``rates``).

Enters: keys and values, amounts of tokens. Leaves: what the others have put there.
May refuse: everything, at any time and within milliseconds (``Unavailable``); whoever asks goes on alone.
"""
