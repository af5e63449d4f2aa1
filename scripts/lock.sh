#!/bin/sh
# Resolve pyproject.toml into requirements/, and requirements/engines/*.in into src/corral/runtimes/_locks/: exact
# versions with the hashes of every file, for all platforms and Pythons.
#
#   scripts/lock.sh                 everything
#   scripts/lock.sh engines         only what engines run on
#
# No index address gets into the files: whoever installs uses their own (docs/decisions/0002-locks.md).
# Versions already locked stay where they are unless they are forbidden; ARGS=--upgrade takes the newest.

set -eu

cd "$(dirname "$0")/.."
. scripts/tell_uv.sh

command -v uv > /dev/null 2>&1 || { echo "lock: this needs uv; one way to have it: pip install uv" >&2; exit 1; }
tell_uv "${PYTHON:-python3}"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

compile() {
    uv pip compile "$@" --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
        --no-emit-index-url --no-emit-find-links --quiet
}

lock() {
    target=$1
    shift
    compile pyproject.toml "$@" --output-file "requirements/$target.txt"
}

# One lock serves whoever has a build of torch for processors at hand and whoever has not: `torch==…` names the files of
# both, and what the other build needs of CUDA is a lock of its own (scripts/engine_lock.py).
lock_engine() {
    kind=$1
    shift
    target=src/corral/runtimes/_locks/$kind.txt
    [ ! -f "$target" ] || cp "$target" "$scratch/$kind.txt"
    compile "requirements/engines/$kind.in" --override requirements/engines/without.txt "$@" \
        --output-file "$scratch/$kind.txt"
    "${PYTHON:-python3}" scripts/engine_lock.py join "$scratch/$kind.txt" "$target"
}

lock_cuda() {
    grep -h '^torch==' requirements/engines/without.txt > "$scratch/cuda.in"
    (unset UV_FIND_LINKS; compile "$scratch/cuda.in" "$@" --output-file "$scratch/cuda.txt")
    "${PYTHON:-python3}" scripts/engine_lock.py cuda "$scratch/cuda.txt" src/corral/runtimes/_locks/torch-cuda.txt
}

only=
if [ "${1:-}" = engines ]; then only=engines; shift; fi
if [ -z "$only" ]; then
    lock base --group build "$@"
    lock dev --group dev --constraint requirements/base.txt "$@"
fi
for input in requirements/engines/*.in; do
    lock_engine "$(basename "$input" .in)" "$@"
done
lock_cuda "$@"
