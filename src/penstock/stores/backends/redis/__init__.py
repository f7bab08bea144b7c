"""Redis as what several servers share: remembered vectors (``cache``).

Enters: keys and values. Leaves: what the others have put there.
May refuse: everything, at any time and within milliseconds (``Unavailable``); whoever asks goes on alone.
"""
