#!/bin/sh
# Rules of the house, checked by machine. Prints a line for every breach; the last line counts.
# usage: tests/house/run.sh [BUILD]
build=${1:-build}
bad=0
breach() { echo "house: $*"; bad=$((bad + 1)); }
count() { n=$(printf '%s' "$1" | grep -c .); [ "$n" -eq 0 ] || { printf '%s\n' "$1" | sed 's/^/house: /'; bad=$((bad + n)); }; }

# 1. Folders include only what src/LAYERS allows, and LAYERS has no cycle: a line names only folders above it.
count "$(grep -rnE '^#include "[a-z]+/' src --include='*.[ch]' |
awk -F'[:"]' 'NR==FNR { split($0, p, ":"); gsub(/ /, "", p[1]); ok[p[1]] = " " p[1] " " p[2] " "; next }
  { split($1, a, "/"); split($4, b, "/"); if (index(ok[a[2]], " " b[1] " ") == 0) print $1 ":" $2 ": " a[2] " may not see " b[1] }' src/LAYERS -)"
count "$(awk -F: '{ gsub(/ /, "", $1); n = split($2, d, " "); for (i = 1; i <= n; i++) if (!(d[i] in seen)) print "src/LAYERS: " $1 " names " d[i] " before it is there"; seen[$1] = 1 }' src/LAYERS)"
for d in src/*/; do grep -q "^$(basename "$d") *:" src/LAYERS || breach "src/LAYERS does not name $d"; done

# 2. The library neither prints nor ends the process.
count "$(grep -rnE '(^|[^a-z_])(printf|fprintf|puts|putchar|perror|exit|abort|_exit)\(' src --include='*.c' --include='*.h' |
  grep -v '^src/cli/' | grep -vE 'format\(printf|: *\*|/\*')"

# 3. No mutable globals and no function-local statics in the library: a rank may be a thread.
for o in $(find "$build/src" -name '*.o' 2>/dev/null | grep -v '/cli/'); do
    data=$(objdump -t "$o" 2>/dev/null | awk '$0 ~ / O \.(data|bss)($|\t| )/ && $0 !~ /data\.rel\.ro|__odr_asan/ { print $NF }')
    [ -z "$data" ] || count "$(for s in $data; do echo "$o: mutable global $s"; done)"
done

# 4. The shared library shows hadal_* and nothing else.
if [ -f "$build/libhadal.so" ]; then
    count "$(nm -D --defined-only "$build/libhadal.so" | awk '$2 ~ /[TDBRV]/ && $3 !~ /^hadal_/ { print "libhadal.so shows " $3 }')"
fi

# 5. Headers compile alone; those up to kernels/ and the public one as C++, too.
for h in $(find src include -name '*.h'); do
    gcc -std=c11 -D_DEFAULT_SOURCE -Iinclude -Isrc -fsyntax-only -x c "$h" 2>/dev/null || case $h in
        src/kernels/cpu/*) ;; # need their level's flags
        *) breach "$h does not compile alone" ;;
    esac
done
for h in include/hadal.h src/base/error.h src/tensor/*.h; do
    g++ -std=c++17 -Iinclude -Isrc -fsyntax-only -x c++ "$h" 2>/dev/null || breach "$h does not compile as C++"
done

# 6. Long files say in their first comment why they are one thing.
for f in $(find src -name '*.c' -o -name '*.h'); do
    n=$(wc -l < "$f")
    [ "$n" -le 900 ] || head -20 "$f" | grep -qi 'one file\|one thing' || breach "$f has $n lines and does not say why"
done

# 7. Formatting, and words that hide unfinished work.
if clang-format --version 2> /dev/null | grep -q 'version 14\.'; then # other versions break lines elsewhere
    for f in $(find src include tests examples -name '*.[ch]'); do
        clang-format --dry-run --Werror "$f" 2> /dev/null || breach "$f is not formatted (make format)"
    done
fi
count "$(grep -rnE 'TODO|FIXME|[^X]XXX[^X]' src include tests examples --include='*.[ch]')"

# 8. Every subcommand has a page or a section in docs/.
for c in $(sed -n 's/^ *\.name = "\([a-z]*\)",.*/\1/p' src/cli/cmd_*.c); do
    grep -rqE "hadal $c" docs README.md 2> /dev/null || breach "docs do not mention 'hadal $c'"
done

[ "$bad" -eq 0 ] && echo 'house: in order'
[ "$bad" -eq 0 ]
