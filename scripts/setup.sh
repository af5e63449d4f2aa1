#!/bin/sh
# Make .venv hold what a lock file says and nothing else, with this project in it, editable.
#
#   scripts/setup.sh base     what Corral needs to run
#   scripts/setup.sh dev      that, and what its tests and checks need
#
#   PYTHON=…                  the interpreter to build on; otherwise the first of python3, python3.13, … that will do
#   VENV=…                    the folder to build in; otherwise .venv
#
# A finished install leaves a stamp with a checksum of what it was made from, so that the next call returns at once.
# The stamp is taken away before anything changes and written last: an install that was interrupted is done again.
# With uv on the path it does the work, otherwise venv and pip. An environment only grows: `base` after `dev` keeps `dev`.

set -eu

cd "$(dirname "$0")/.."
. scripts/tell_uv.sh
here=$(pwd -P)
level=${1:-base}
venv=${VENV:-.venv}
case $venv in /*) ;; *) venv=$here/$venv ;; esac
python=$venv/bin/python
stamp=$venv/.corral

say() { printf 'setup: %s\n' "$*" >&2; }
refuse() { say "$*"; exit 1; }
have() { command -v "$1" > /dev/null 2>&1; }

# The interpreter a program stands on, also when it is the `python` of a virtual environment; fails below 3.11.
base_of() {
    "$1" -c 'import os, sys
if sys.version_info < (3, 11): sys.exit(1)
print(os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable))' 2> /dev/null
}

choose_python() {
    if [ -n "${PYTHON:-}" ]; then
        have "$PYTHON" || refuse "PYTHON=$PYTHON is not a program."
        base_of "$PYTHON" || refuse "PYTHON=$PYTHON is $("$PYTHON" -V 2>&1); Corral needs Python 3.11 or newer."
        return
    fi
    for name in python3 python3.13 python3.12 python3.11 python3.14; do
        if have "$name" && base_of "$name"; then return; fi
    done
    if have uv && found=$(uv python find --no-python-downloads '>=3.11' 2> /dev/null) && base_of "$found"; then return; fi
    refuse "Corral needs Python 3.11 or newer and found none. Install one, or name it: make run PYTHON=/path/to/python3"
}

# Whether the environment was made in this very place, whole, on an interpreter that is still there and still wanted.
is_sound() {
    [ -f "$venv/pyvenv.cfg" ] && grep -qF "$venv" "$venv/bin/activate" 2> /dev/null || return 1
    "$python" -c 'import os, sys, sysconfig
sys.exit(sys.version_info < (3, 11) or not os.path.isdir(sysconfig.get_path("purelib")))' 2> /dev/null || return 1
    [ -z "${PYTHON:-}" ] || [ "$(base_of "$python")" = "$(choose_python)" ]
}

# Everything an install is made from: when any of it changes, the checksum does.
fingerprint() {
    { printf '%s\n' "$here" "$1"; cat requirements/base.txt "requirements/$1.txt" pyproject.toml; } | cksum
}

build_venv() {
    base=$(choose_python)
    if [ -e "$venv" ]; then
        if [ -f "$venv/pyvenv.cfg" ] || [ -f "$venv/.corral-making" ]; then
            say "$venv is unfinished, was moved, or stands on another Python: making it anew"
            rm -rf "$venv"
        else
            refuse "$venv is in the way and is no virtual environment. Move it, or name another: make run VENV=…"
        fi
    fi
    mkdir -p "$venv"
    : > "$venv/.corral-making"
    if have uv; then
        uv venv --quiet --allow-existing --python "$base" "$venv"
    else
        "$base" -m venv "$venv" || {
            rm -rf "$venv"
            refuse "$base cannot make virtual environments. On Debian or Ubuntu: sudo apt-get install python3-venv"
        }
    fi
    rm "$venv/.corral-making"
}

fill() {
    lock=requirements/$1.txt
    say "installing $(grep -c '^[a-z0-9].*==' "$lock") locked packages into $venv (only when they change)"
    if have uv; then
        (
            tell_uv "$(choose_python)"
            uv pip sync --python "$python" --require-hashes "$lock"
            uv pip install --quiet --python "$python" --no-deps --no-build-isolation --editable .
        )
    else
        "$python" -m pip --version > /dev/null 2>&1 || "$python" -m ensurepip --upgrade > /dev/null
        "$python" -m pip install --disable-pip-version-check --no-deps --require-hashes --requirement "$lock"
        "$python" -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
    fi
    "$venv/bin/corral" --version > /dev/null || refuse "Corral was installed and does not start; see above."
}

case $level in base | dev) ;; *) refuse "usage: scripts/setup.sh base|dev" ;; esac

[ -z "${PYTHON:-}" ] || choose_python > /dev/null
done_before=
if is_sound; then
    [ ! -f "$stamp" ] || done_before=$(cat "$stamp")
    case $done_before in dev*) level=dev ;; esac
else
    build_venv
fi
wanted="$level $(fingerprint "$level")"
[ "$done_before" != "$wanted" ] || exit 0
rm -f "$stamp"
fill "$level"
printf '%s\n' "$wanted" > "$stamp.new"
mv "$stamp.new" "$stamp"
