"""Texts become arrays: tokenizers, ONNX runners, models behind endpoints, and the preparation of the dense model.

Enters: texts, a ``source.SourceSettings``. Leaves: dense, sparse and relevance arrays as
``contract`` names them. May refuse: weights that are missing, altered or not BERT-shaped, a cache
directory that cannot be written. Read next: ``contract``, then ``source`` → ``prepare`` → ``graph``
for the cold start, ``dense`` for the hot path, ``choice`` and ``remote`` for models of other kinds.
"""
