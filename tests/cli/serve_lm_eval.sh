#!/bin/sh
# lm-evaluation-harness against hadal serve: sh tests/cli/serve_lm_eval.sh HADAL
# It comes from PyPI into the environment of the other clients beside the program, once. Without network or venv: SKIP.
hadal=$1
harness='lm_eval[api]==0.4.13 transformers==5.23.0'
python=$(dirname "$hadal")/clients/bin/python

there() {
    "$python" -c 'from importlib.metadata import version as v; v("lm_eval"), v("aiohttp"), v("transformers")' 2>/dev/null
}
if ! there; then
    if ! [ -x "$python" ] && ! python3 -m venv "$(dirname "$hadal")/clients" >/dev/null 2>&1; then
        echo "SKIP serve_lm_eval: no python3 with venv"
        exit 0
    fi
    if ! "$python" -m pip install -q --disable-pip-version-check --retries 1 $harness >/dev/null 2>&1; then
        echo "SKIP serve_lm_eval: $harness cannot be installed (no network?)"
        exit 0
    fi
fi
err=$(mktemp)
"$python" "$(dirname "$0")/../server/harness.py" "$hadal" 2>"$err"
code=$?
[ $code -eq 0 ] || tail -n 15 "$err" # the harness talks a lot
rm "$err"
exit $code
