"""HTTP API: a gate that refuses requests before their body is read, routes, problem details, OpenAPI.

Enters: bytes. Leaves: request records to the packages below, JSON to the caller.
May refuse: anything malformed, too large or too much (``application/problem+json``).
Read next: :mod:`penstock.http.gate`, then :mod:`penstock.http.routes`, :mod:`penstock.http.operations`.
"""
