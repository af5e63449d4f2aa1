#!/bin/sh
# What corral-test/tiny runs; words in a row, the last one ends it or goes on for ever:
#   serve PORT [HOST]    answers GET of /health, /api/version, /api/tags, /api/ps, /v1/models as a server without a model
#   wait [SECONDS]       does nothing, and ends politely
#   exit CODE            ends
#   eat MB               takes so much memory and keeps it
#   burn                 takes a processor
#   say TEXT             prints a line and goes on with the next word
#   warn TEXT            the same on standard error
#   print N              prints n lines a second: `line 1`, `line 2`, …
#   lines N              prints n lines as fast as it can and goes on with the next word
#   after SECONDS        sleeps and goes on with the next word
#   deaf                 ignores SIGTERM from here on and goes on with the next word
#   once FILE            goes on with the next word the first time, and ends well when FILE is there
# `and` between two commands runs the first in the background: `serve 8000 and after 3 exit 4`.
set -eu

deaf=""
trap 'exit 143' TERM INT

# A container's first process is told of no signal that it does not ask for: the script stays, and passes them on.
run() {
  "$@" &
  child=$!
  [ "$deaf" ] || trap 'kill "$child"; exit 143' TERM INT
  code=0
  wait "$child" || code=$?
  exit "$code"
}

case " $* " in
  *" and "*)
    first=""
    while [ "$1" != and ]; do first="$first $1"; shift; done
    shift
    # shellcheck disable=SC2086
    "$0" $first &
    ;;
esac

while [ $# -gt 0 ]; do
  word=$1
  shift
  case $word in
    serve) run httpd -f -p "${2:-0.0.0.0}:$1" -h /www ;;
    wait) run sleep "${1:-100000}" ;;
    exit) exit "$1" ;;
    eat)
      mkfifo /tmp/eaten
      sleep 100000 < /tmp/eaten &
      run dd if=/dev/zero of=/tmp/eaten "bs=${1}M" count=1
      ;;
    burn) while :; do :; done ;;
    say) echo "$1"; shift ;;
    warn) echo "$1" >&2; shift ;;
    print)
      run awk -v "n=$1" 'BEGIN { for (i = 1; ; i++) { print "line " i; if (i % n == 0) { fflush(); system("sleep 1") } } }'
      ;;
    lines) awk -v "n=$1" 'BEGIN { for (i = 1; i <= n; i++) print "line " i }'; shift ;;
    after) sleep "$1" & wait $!; shift ;;
    deaf) deaf=1; trap '' TERM ;;
    once) if [ -e "$1" ]; then exit 0; fi; : > "$1"; shift ;;
    *) echo "tiny: no word $word" >&2; exit 64 ;;
  esac
done
