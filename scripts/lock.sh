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

# A mirror beside the index may hold one file of a version where the index holds all, and the first that has the version
# is believed: only the index itself is asked. Hashes that are known already would be taken over, though they be few.
unset UV_INDEX

compile() {
    out=$1
    shift
    [ ! -f "$out" ] || sed -e '/^ *--hash=/d' -e 's/ \\$//' "$out" > "$scratch/out.txt"
    uv pip compile "$@" --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
        --no-emit-index-url --no-emit-find-links --quiet --output-file "$scratch/out.txt"
    mv "$scratch/out.txt" "$out"
}

lock() {
    target=$1
    shift
    (unset UV_FIND_LINKS; compile "requirements/$target.txt" pyproject.toml "$@")
}

# One lock serves whoever has a build of torch for processors at hand and whoever has not: `torch==…` names the files of
# both, and what the other build needs of CUDA is a lock of its own (scripts/engine_lock.py).
lock_engine() {
    kind=$1
    shift
    target=src/corral/runtimes/_locks/$kind.txt
    [ ! -f "$target" ] || cp "$target" "$scratch/$kind.txt"
    compile "$scratch/$kind.txt" "requirements/engines/$kind.in" --override requirements/engines/without.txt "$@"
    "${PYTHON:-python3}" scripts/engine_lock.py join "$scratch/$kind.txt" "$target"
}

lock_cuda() {
    grep -h '^torch==' requirements/engines/without.txt > "$scratch/cuda.in"
    (unset UV_FIND_LINKS; compile "$scratch/cuda.txt" "$scratch/cuda.in" "$@")
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
