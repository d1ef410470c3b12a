#!/bin/sh
# The server under load, among slow and vanishing clients, killed and told to stop: sh tests/cli/serve_load.sh HADAL
# The long test of memory: python3 tests/server/load.py HADAL 600. Prints "ok NAME" or "FAIL NAME".
python3 tests/server/load.py "$1" 3
