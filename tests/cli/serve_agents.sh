#!/bin/sh
# /v1/messages and /v1/responses of hadal serve, as coding agents use them: sh tests/cli/serve_agents.sh HADAL
# Prints "ok NAME" or "FAIL NAME".
if ! command -v python3 >/dev/null; then
    echo "SKIP no python3"
    exit 0
fi
python3 "$(dirname "$0")/../server/agents.py" "$1"
