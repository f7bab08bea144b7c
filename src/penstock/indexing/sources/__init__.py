"""Sources: trees of files whose documents in a collection are kept as the files are.

Enters: directories, and a client of the API that takes documents. Leaves: documents sent and removed, and counts.
Read next: `index_sources.py` (which source a path belongs to), `local_files.py` (its files), `index_run.py` (a run).
"""
