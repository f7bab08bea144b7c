"""Command line: the only package that reads argv and the environment, and the only one that prints.

Enters: argv, environment, a YAML file. Leaves: text, one JSON object with ``--json``, an exit code (0, 1, 2, 130).
May refuse: settings that cannot be used, all of them in one message; a data directory that another process holds.
Read next: ``main.py`` (the commands), ``settings_loader.py`` (settings), ``session.py`` (how commands reach the app).
"""
