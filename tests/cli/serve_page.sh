#!/bin/sh
# The page of hadal serve, in Chromium where there is one: sh tests/cli/serve_page.sh HADAL
command -v python3 >/dev/null || { echo "SKIP the page: no python3"; exit 0; }
exec python3 "$(dirname "$0")/../server/page.py" "$1"
