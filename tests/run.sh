#!/bin/sh
# Runs all tests: the programs given as arguments (cmocka), the command-line tests, the fuzz targets for a moment each
# (the same inputs every time; FUZZ_RUNS=10000000 and a build/fuzz/tests/fuzz/ program by hand dig deeper), the
# rules of the house. The last line is `N passed, N failed`.
# usage: BUILD=build tests/run.sh TEST...
build=${BUILD:-build}
passed=0 failed=0
log=$build/test.log
ok() { passed=$((passed + ${1:-0})); failed=$((failed + ${2:-0})); }
least() { [ "${1:-0}" -gt 0 ] && echo "$1" || echo 1; } # a program that failed without saying where counts as one

for t in "$@"; do
    "$t" > "$log" 2>&1
    code=$?
    good=$(grep -c '\[       OK \]' "$log")
    bad=$(grep "^\[  FAILED  \] [a-z_0-9]*$" "$log" | sort -u | grep -c .)
    if [ $code -ne 0 ]; then
        bad=$(least "$bad")
        echo "FAILED $t (exit code $code)"
        grep -vE '^\[ (RUN|      OK)' "$log" | head -60
    else
        bad=0
        echo "ok     $t ($good tests)"
    fi
    grep -h '^SKIP' "$log"
    ok "$good" "$bad"
done

if [ -d tests/data/models ] && [ -x "$build/tests/gold/gold" ]; then
    bad=0
    if "$build/tests/gold/gold" tests/data > "$log" 2>&1; then
        echo "ok     reference data of tests/data ($(tail -1 "$log"))"
    else
        grep -v '^ok' "$log"
        bad=$(least "$(sed -n '$s/.* \([0-9]*\) failed.*/\1/p' "$log")")
    fi
    ok "$(sed -n '$s/^\([0-9]*\) passed.*/\1/p' "$log")" "$bad"
fi

for cli in tests/cli/*.sh; do
    bad=0
    if sh "$cli" "$build/hadal" > "$log" 2>&1; then
        echo "ok     command line, $(basename "$cli" .sh) ($(grep -c '^ok' "$log") tests)"
    else
        grep -v '^ok' "$log"
        bad=$(least "$(grep -c '^FAIL' "$log")")
    fi
    grep -h '^SKIP' "$log"
    ok "$(grep -c '^ok' "$log")" "$bad"
done

for f in build/fuzz/tests/fuzz/fuzz_*; do
    [ -x "$f" ] && [ "$build" = build ] || continue
    name=$(basename "$f")
    corpus=build/fuzz/corpus/$name
    mkdir -p "$corpus"
    [ ! -d "tests/fuzz/corpus/$name" ] || cp -n tests/fuzz/corpus/"$name"/* "$corpus"/
    if "$f" -seed=1 -runs="${FUZZ_RUNS:-50000}" -max_total_time=30 -rss_limit_mb=2048 -artifact_prefix="$build/" "$corpus" > "$log" 2>&1; then
        echo "ok     $name ($(grep -o 'stat::number_of_executed_units: *[0-9]*' "$log" | grep -o '[0-9]*$') $(tail -1 "$log"))"
        ok 1 0
    else
        echo "FAILED $name"
        tail -30 "$log"
        ok 0 1
    fi
done

if [ -x "$build/examples/complete" ] && [ -d tests/data/models ]; then
    model=$(ls -d tests/data/models/*/checkpoint | while read -r d; do [ -f "$d/tokenizer.json" ] && echo "$d" && break; done)
    if "$build/examples/complete" "$model" "Hello" > "$log" 2>&1; then echo "ok     example program"; ok 1 0; else echo "FAILED example program"; cat "$log"; ok 0 1; fi
fi

if sh tests/house/run.sh "$build"; then ok 1 0; else ok 0 1; fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
