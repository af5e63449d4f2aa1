#!/bin/sh
# Make what tests need of the heavy engines, once, in a cache folder, and print where it is.
#
#   scripts/engines.sh transformers     an environment with transformers' own server
#   scripts/engines.sh vllm             an environment with vLLM for processors
#   scripts/engines.sh model [GGUF]     SmolLM2 as safetensors, converted from the GGUF file by the environment above
#   scripts/engines.sh --have WHAT      print where it is; fails, saying nothing, when it is not made yet
#
#   CORRAL_ENGINES=…                    the cache folder; otherwise corral-engines in the user's cache folder
#   PYTHON=…  VENV=…                    as in scripts/setup.sh
#
# Each folder is named after a checksum of what it is made from. A stamp in it is written last: a build that was
# interrupted is done again. Two that want the same at once build it once. What was not asked for in 30 days goes.

set -eu

cd "$(dirname "$0")/.."
. scripts/tell_uv.sh
locks=src/corral/runtimes/_locks
root=${CORRAL_ENGINES:-${XDG_CACHE_HOME:-$HOME/.cache}/corral-engines}
own=${VENV:-.venv}/bin

say() { printf 'engines: %s\n' "$*" >&2; }
refuse() { say "$*"; exit 1; }
have() { command -v "$1" > /dev/null 2>&1; }

# The interpreter to build on: a virtual environment made from another one would go when that one goes.
base() {
    "${PYTHON:-python3}" -c 'import os, sys
print(os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable))'
}

# Everything a thing is made from: when any of it changes, its folder is another.
checksum() {
    case $1 in
        model) cat scripts/gguf_to_safetensors.py ;;
        *) base; "$(base)" -V; cat "$locks/$1.txt" "$locks/torch-cuda.txt" ;;
    esac | cksum | tr ' ' '-'
}

# The tool that installs: uv where there is one, otherwise pip, which is slower.
if ! uv=$(command -v uv || command -v "$own/uv"); then uv=; fi

install() {
    if [ -n "$uv" ]; then
        set -- "$1" "$2" "$uv" pip install --quiet --python "$1/bin/python"
    else
        set -- "$1" "$2" "$1/bin/python" -m pip install --disable-pip-version-check --quiet --quiet
    fi
    lock=$2
    shift 2
    "$@" --no-deps --require-hashes --requirement "$lock" >&2
}

# A build of torch for processors first, where one is offered: the public one, with CUDA, is fifteen times the size.
install_torch() {
    sed -n '/^torch==/,/^[a-z]/{/^torch==\|^ /p}' "$2" | sed 's/^\(torch==[0-9.]*\)/\1+cpu/' > "$1/torch.txt"
    install "$1" "$1/torch.txt" 2> /dev/null || say "no build of torch for processors is offered here; taking the public one"
}

# The build of torch that came needs CUDA's libraries even where there is no GPU, unless it was made for processors.
wants_cuda() {
    "$1/bin/python" -c 'import sys
from importlib.metadata import version
sys.exit(sys.platform != "linux" or "+cpu" in version("torch"))'
}

build_environment() {
    say "installing $(grep -c '^[a-z0-9].*==' "$locks/$1.txt") locked packages for $1 into $2"
    "$(base)" -m venv "$2"
    if [ -n "$uv" ]; then tell_uv "$(base)"; fi
    install_torch "$2" "$locks/$1.txt"
    install "$2" "$locks/$1.txt"
    ! wants_cuda "$2" || install "$2" "$locks/torch-cuda.txt"
}

build_model() {
    gguf=${3:-$("$own/python" -m tests.support.engines)}
    environment=$("$0" transformers)
    say "converting $gguf to safetensors in $2"
    mkdir -p "$2"
    "$environment/bin/python" -P scripts/gguf_to_safetensors.py "$gguf" "$2" >&2
}

# Go on with the same command as the only one of its kind: the lock goes with the process, however that ends.
alone() {
    mkdir -p "$root"
    exec "$(base)" -c 'import fcntl, os, sys
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)
fcntl.flock(lock, fcntl.LOCK_EX)
os.set_inheritable(lock, True)
os.environ["CORRAL_ENGINES_ALONE"] = sys.argv[1]
os.execv("/bin/sh", ["sh", *sys.argv[2:]])' "$root/.$what.lock" "$0" "$@"
}

only_look=
if [ "${1:-}" = --have ]; then only_look=yes; shift; fi
what=${1:-}
case $what in
    model) ;;
    */* | '' | torch-cuda) refuse "usage: scripts/engines.sh [--have] transformers|vllm|model" ;;
    *) [ -f "$locks/$what.txt" ] || refuse "$what is not known: there is no $locks/$what.txt" ;;
esac

folder=$root/$what-$(checksum "$what")
if [ -f "$folder/.corral" ]; then
    touch "$folder/.corral" 2> /dev/null || true
    printf '%s\n' "$folder"
    exit
fi
[ -z "$only_look" ] || exit 1
[ "${CORRAL_ENGINES_ALONE:-}" = "$root/.$what.lock" ] || alone "$@"

rm -rf "$folder"
case $what in
    model) build_model "$what" "$folder" "${2:-}" ;;
    *) build_environment "$what" "$folder" ;;
esac
: > "$folder/.corral"
find "$root" -mindepth 2 -maxdepth 2 -name .corral -mtime +30 -exec sh -c 'rm -rf "${1%/.corral}"' - {} \;
printf '%s\n' "$folder"
