#!/bin/sh
# What `make install` puts beside the program: sh tests/cli/packaging.sh HADAL
# The manual page names every command and every option of serve, and no others; the unit is one that systemd understands.
# HADAL is in the build folder whose files are installed. Prints "ok NAME" or "FAIL NAME".
hadal=$1
t=$(mktemp -d) || exit 2
trap 'rm -rf "$t"' EXIT
export LC_ALL=C.UTF-8
. "$(dirname "$0")/kit"

page=docs/hadal.1
commands_of_page() { sed -n '/^\.Sh COMMANDS/,/^\.Sh SERVING/s/^\.It Cm //p' $page | sort; }
commands_of_program() { "$hadal" help | sed -n '/^Commands:/,/^$/s/^  \([a-z0-9]*\) .*/\1/p' | sort; }
options_of_page() { sed -n '/^\.Sh SERVING/,/^\.Sh ENVIRONMENT/s/^\.It .*Fl Fl \([a-z-]*\).*/\1/p' $page | sort; }
options_of_program() { "$hadal" serve --help | sed -n 's/^ .\{5\}--\([a-z-]*\).*/\1/p; s/^  -., --\([a-z-]*\).*/\1/p' | grep -v '^help$' | sort; }
same_list() { # the first is not empty, and both are the same
    "$1" >"$t/out"
    "$2" >"$t/err"
    [ -s "$t/out" ] && cmp -s "$t/out" "$t/err"
}

verdict "manual: every command" same_list commands_of_program commands_of_page
verdict "manual: every option of serve" same_list options_of_program options_of_page
if command -v man groff >/dev/null; then
    no_warnings() { man --warnings -E UTF-8 -l -Tutf8 -Z $page >/dev/null 2>"$t/err" && [ ! -s "$t/err" ]; }
    verdict "manual: is set without a warning" no_warnings
    reads() { MANWIDTH=80 man -l $page >"$t/out" 2>"$t/err" && grep -q -- '--cache-folder-size size' "$t/out"; }
    verdict "manual: can be read" reads
else
    echo "SKIP the manual page: no man or groff"
fi

installs() { env -u MAKEFLAGS -u MAKELEVEL make -s -o all install "BUILD=$(dirname "$hadal")" "DESTDIR=$t/root" PREFIX=/usr >"$t/out" 2>"$t/err"; }
has() { [ -s "$t/root/usr/$1" ] || { echo "no $1" >>"$t/err"; return 1; }; }
verdict "install" installs
for f in bin/hadal lib/libhadal.so lib/libhadal.a lib/pkgconfig/hadal.pc include/hadal.h share/man/man1/hadal.1 \
    share/bash-completion/completions/hadal lib/systemd/system/hadal.service; do
    verdict "install: $f" has $f
done
runs() { "$t/root/usr/bin/hadal" version >"$t/out" 2>"$t/err" && grep -q '^hadal ' "$t/out"; }
verdict "install: the program runs" runs
completes() { bash -c '. "$1"; COMP_WORDS=(hadal serve --cache-); COMP_CWORD=2; _hadal; printf "%s\n" "${COMPREPLY[@]}"' - \
    "$t/root/usr/share/bash-completion/completions/hadal" >"$t/out" 2>"$t/err" && grep -qx -- --cache-folder "$t/out"; }
if command -v bash >/dev/null; then verdict "completion: options of serve" completes; else echo "SKIP completion: no bash"; fi

if command -v systemd-analyze >/dev/null; then
    understood() { # the program has to be where the unit says
        sed "s|^ExecStart=/usr/bin/hadal|ExecStart=$t/root/usr/bin/hadal|" "$t/root/usr/lib/systemd/system/hadal.service" >"$t/hadal.service"
        grep -q "^ExecStart=$t" "$t/hadal.service" && systemd-analyze verify --man=no "$t/hadal.service" >"$t/out" 2>"$t/err" && [ ! -s "$t/err" ]
    }
    verdict "unit: systemd understands it" understood
else
    echo "SKIP the unit: no systemd-analyze"
fi
[ "$failed" -eq 0 ]
