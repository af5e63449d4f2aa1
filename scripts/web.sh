#!/bin/sh
# Build the pages for browsers of web/ into src/corral/ui/.
#
#   scripts/web.sh              build them; where Node is missing, say so and go on without them
#   scripts/web.sh required     the same, and fail where they cannot be built
#
#   NODE=…                      the Node to build with; otherwise that of the path, or that of the environment
#   VENV=…                      the environment; otherwise .venv
#
# A finished build leaves a stamp with a checksum of all it was made from, so that the next call returns at once.

set -eu

cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
target=src/corral/ui
stamp=$target/.built
here=$(pwd -P)

say() { printf 'web: %s\n' "$*" >&2; }
go_on() {
    say "$*"
    [ "$level" != required ] || exit 1
    if [ -f "$target/manifest.json" ]; then say "the pages of an earlier build are served"; else say "there will be no pages at /ui/"; fi
    exit 0
}

# A Node that can run the build: `^20.19 || >=22.12`, and its npm beside it.
fits() {
    "$1" -e 'const [a, b] = process.versions.node.split(".").map(Number)
process.exit(a > 22 || (a === 22 && b >= 12) || (a === 20 && b >= 19) ? 0 : 1)' 2> /dev/null
}

choose_node() {
    for name in "${NODE:-}" node "$venv/bin/node"; do
        if [ -n "$name" ] && command -v "$name" > /dev/null 2>&1 && fits "$name"; then command -v "$name"; return; fi
    done
    return 1
}

# Only what git would know, so that an editor's own files do not count.
fingerprint() {
    {
        printf '%s\n' "$here"
        find web -type f ! -path 'web/node_modules/*' ! -path 'web/.build-*' ! -name '*.swp' ! -name '*~' -print0 \
            | LC_ALL=C sort -z | xargs -0 cksum
    } | cksum
}

level=${1:-}
case $level in '' | required) ;; *) say "usage: scripts/web.sh [required]"; exit 2 ;; esac
wanted=$(fingerprint)
if [ -f "$target/manifest.json" ] && [ "$(cat "$stamp" 2> /dev/null)" = "$wanted" ]; then exit 0; fi

node=$(choose_node) || go_on "this needs Node 20.19, 22.12 or newer, and found none; make dev installs one into $venv"
case $node in /*) ;; *) node=$here/$node ;; esac
folder=$(dirname "$node")
npm=$folder/npm
[ -x "$npm" ] || npm=$(command -v npm) || go_on "there is a Node at $node, and no npm"
PATH=$folder:$PATH
export PATH

mkdir -p "$target"
# Two at a time would build into each other.
if command -v flock > /dev/null 2>&1; then
    exec 9> "$target/.lock"
    flock 9
    if [ -f "$target/manifest.json" ] && [ "$(cat "$stamp" 2> /dev/null)" = "$wanted" ]; then exit 0; fi
fi
rm -f "$stamp"
# What is installed is what the lock says, or is made so.
locked=$(cksum < web/package-lock.json)
if [ "$(cat web/node_modules/.locked 2> /dev/null)" != "$locked" ]; then
    say "installing what the pages are built with (only when it changes)"
    (cd web && "$npm" ci --no-audit --no-fund --loglevel=error > /dev/null) || go_on "npm could not install it; see above"
    printf '%s\n' "$locked" > web/node_modules/.locked
fi
(cd web && node node_modules/typescript/bin/tsc --noEmit && node build.mjs ../$target) || { say "the build failed"; exit 1; }
printf '%s\n' "$wanted" > "$stamp"
