#!/bin/sh
# Resolve pyproject.toml into requirements/: exact versions with the hashes of every file, for all platforms and Pythons.
#
# No index address gets into the files: whoever installs uses their own (docs/decisions/0002-locks.md).
# Versions already locked stay where they are unless pyproject.toml forbids them; ARGS=--upgrade takes the newest.

set -eu

cd "$(dirname "$0")/.."
. scripts/tell_uv.sh

command -v uv > /dev/null 2>&1 || { echo "lock: this needs uv; one way to have it: pip install uv" >&2; exit 1; }
tell_uv "${PYTHON:-python3}"

lock() {
    target=$1
    shift
    uv pip compile pyproject.toml "$@" --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
        --no-emit-index-url --no-emit-find-links --quiet --output-file "requirements/$target.txt"
}

lock base --group build "$@"
lock dev --group dev --constraint requirements/base.txt "$@"
