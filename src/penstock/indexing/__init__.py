"""Indexing: files become chunks, and chunks become points of a collection.

Enters: paths named by a user, or documents with their text. Leaves: chunks with exact line ranges and symbols.
May refuse: `/` and the home directory, files that are no text, too large, ignored, left out or changing while read.
Read next: `walk.py` (the files), `exclusion.py` (what is left out), `file_reader.py` (their text), `chunk/` (their
pieces), then `index_pipeline.py`.
"""
