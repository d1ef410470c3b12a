#!/bin/sh
# The real Python clients of OpenAI and Anthropic against hadal serve: sh tests/cli/serve_clients.sh HADAL
# They come from PyPI into an environment beside the program, once. Without network or venv: SKIP.
hadal=$1
clients=openai==3.54.0\ anthropic==2.12.0
python=$(dirname "$hadal")/clients/bin/python

if ! [ -x "$python" ] || ! "$python" -c 'import openai, anthropic' 2>/dev/null; then
    if ! python3 -m venv "$(dirname "$hadal")/clients" >/dev/null 2>&1; then
        echo "SKIP serve_clients: no python3 with venv"
        exit 0
    fi
    if ! "$python" -m pip install -q --disable-pip-version-check --retries 1 $clients >/dev/null 2>&1; then
        echo "SKIP serve_clients: $clients cannot be installed (no network?)"
        exit 0
    fi
fi
"$python" "$(dirname "$0")/../server/clients.py" "$hadal"
