"""How fast texts become dense vectors, beside peers with the same weights, texts and machine.

Read ``texts`` (what is embedded), ``systems`` (ours), ``peers`` (theirs), ``conduct`` (in which order), ``results``.
"""
