#!/bin/sh
# The server as its clients meet it: sh tests/cli/serve.sh HADAL
# Prints "ok NAME" or "FAIL NAME".
python3 tests/server/interface.py "$1"
