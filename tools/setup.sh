#!/bin/sh
# Installs the Debian packages that building and testing need, when they are not there yet.
set -e
packages="gcc g++ make binutils libc6-dev libjansson-dev libmicrohttpd-dev libpcre2-dev libutf8proc-dev libreadline-dev libyaml-dev zlib1g-dev libzstd-dev zstd
  libcmocka-dev clang libclang-rt-14-dev clang-format python3 python3-venv gzip"
missing=
for p in $packages; do
    dpkg-query -W -f '${Status}' "$p" 2> /dev/null | grep -q 'install ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
echo "installing:$missing"
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
$sudo apt-get update -qq
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing > /dev/null
