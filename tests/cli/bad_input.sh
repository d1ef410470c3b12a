#!/bin/sh
# What hadal says to broken, hostile and odd files: sh tests/cli/bad_input.sh HADAL
# Prints "ok NAME" or "FAIL NAME", as tests/cli/run.sh does; bad_input.py makes the files.
t=$(mktemp -d) || exit 2
trap 'rm -rf "$t"' EXIT
export XDG_STATE_HOME="$t/state" LC_ALL=C.UTF-8
python3 "$(dirname "$0")/bad_input.py" "$1" "$t"
