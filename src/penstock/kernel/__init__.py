"""The ground floor: clock, deadlines, ids, errors, message records and settings records.

Enters: nothing; this room imports no other. Leaves: plain values every room shares.
May refuse: a setting or a duration that cannot be read (``Invalid``).
Read next: :mod:`penstock.kernel.errors`, then :mod:`penstock.kernel.context`.
"""
