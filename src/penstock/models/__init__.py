"""Models that turn texts into arrays: tokenizers, ONNX runners, remote endpoints, and the preparation of one model.

Enters: texts, settings. Leaves: dense, sparse and relevance arrays as ``contract`` names
them. May refuse: weights that are missing, altered or not BERT-shaped, a cache directory that cannot be written.
Read next: ``contract``, then ``model_source`` → ``prepare`` → ``graph`` for the cold start, ``builtin_dense`` for the
hot path, ``factory`` and ``remote_models`` for models of other kinds.
"""
