"""Tasks: long operations that go on when their request has been answered, and after a restart.

Enters: an accepted operation with its body. Leaves: the record of how it ended, and its result.
May refuse: an operation beyond the bounds of waiting tasks and of the spool, or on a full disk.
Read next: :mod:`penstock.tasks.runner`, then :mod:`penstock.tasks.spool`.
"""
