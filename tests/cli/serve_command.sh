#!/bin/sh
# hadal serve as a command: options, what it prints, signals: sh tests/cli/serve_command.sh HADAL
# Prints "ok NAME" or "FAIL NAME".
command -v python3 >/dev/null || { echo "SKIP hadal serve as a command: no python3"; exit 0; }
exec python3 "$(dirname "$0")/../server/command.py" "$1"
