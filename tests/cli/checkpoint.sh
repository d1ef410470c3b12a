#!/bin/sh
# Native checkpoints of training on the command line: sh tests/cli/checkpoint.sh HADAL [MODEL]
# MODEL is a small Hugging Face folder of BF16 with MTP layers. Prints "ok NAME" or "FAIL NAME".
hadal=$1
model=${2:-${MODEL_MTP:-tests/data/models/v3_mtp/checkpoint}}
t=$(mktemp -d) || exit 2
trap 'rm -rf "$t"' EXIT
export TERM=xterm LC_ALL=C.UTF-8
. "$(dirname "$0")/kit"

# complains WORDS ARGUMENTS...: one line on the error stream that has the words, and exit code 1 or 2
complains() {
    words=$1
    shift
    "$hadal" "$@" >"$t/out" 2>"$t/err" </dev/null
    code=$?
    { [ "$code" -eq 1 ] || [ "$code" -eq 2 ]; } && [ "$(wc -l <"$t/err")" -eq 1 ] && grep -qF -- "$words" "$t/err"
}
# same A B: the files of B are those of A, byte by byte; the index by its content
same() {
    for f in "$2"/*; do
        case $f in
        *.index.json) python3 -c 'import json, sys
a, b = (json.load(open(p)) for p in sys.argv[1:])
sys.exit(a["weight_map"] != b["weight_map"])' "$1/$(basename "$f")" "$f" || return 1 ;;
        *) cmp "$1/$(basename "$f")" "$f" >>"$t/err" 2>&1 || return 1 ;;
        esac
    done
    [ -f "$2/config.json" ] && ls "$2"/*.safetensors >/dev/null
}

if [ ! -f "$model/config.json" ]; then
    echo "SKIP no model at $model"
    exit 0
fi
run=$t/run step=$t/run/step-00000000

verdict "to native" eval 'h 0 convert "$model" "$run" --to native --json && python3 -m json.tool <"$t/out" >/dev/null &&
    [ -f "$step/state.json" ] && [ -f "$run/model/config.json" ] && [ ! -e "$run/convert.json" ]'
verdict "a run becomes a model, byte by byte" eval 'h 0 convert "$run" "$t/back" && same "$model" "$t/back"'
verdict "a step becomes a model" eval 'h 0 convert "$step" "$t/back2" --to bf16 && same "$model" "$t/back2"'
verdict "and answers as before" eval 'h 0 run "$model" -p x -n 4 --temperature 0 --json && cp "$t/out" "$t/a" &&
    h 0 run "$t/back" -p x -n 4 --temperature 0 --json &&
    python3 -c "import json, sys
a, b = (json.load(open(p))[\"ids\"] for p in sys.argv[1:])
sys.exit(not a or a != b)" "$t/a" "$t/out"'
verdict "as f32" eval 'h 0 convert "$run" "$t/f32" --to f32 && h 0 info "$t/f32" --json && grep -q float32 "$t/f32/config.json"'
verdict "without MTP layers" eval 'h 0 convert "$run" "$t/nomtp" --mtp drop && h 0 info "$t/nomtp" --json'
verdict "once more into the same folder" complains "not empty" convert "$run" "$t/back"
verdict "native already" complains "native already" convert "$run" "$t/x" --to native
verdict "fp8 at one go" complains "fp8" convert "$run" "$t/x" --to fp8
verdict "a type is wanted" complains "--to is missing" convert "$model" "$t/x"
verdict "hidden MTP layers" complains "keep or drop" convert "$model" "$t/x" --to native --mtp hide

# Killed while it writes, then typed again.
for i in 1 2 3 4 5 6; do
    "$hadal" convert "$model" "$t/killed" --to native >/dev/null 2>&1 &
    p=$!
    sleep 0.0$i
    kill -9 $p 2>/dev/null
    wait $p 2>/dev/null
    [ ! -e "$t/killed/step-00000000" ] || [ -f "$t/killed/step-00000000/state.json" ] || echo half >"$t/half"
done
[ -e "$t/killed/convert.json" ] || rm -rf "$t/killed"
verdict "killed and typed again" eval '[ ! -e "$t/half" ] && h 0 convert "$model" "$t/killed" --to native &&
    h 0 convert "$t/killed" "$t/back3" && same "$model" "$t/back3"'

shard=$step/shard-0000.safetensors
cp "$step/state.json" "$t/state.json"
cp "$shard" "$t/shard"
printf 'X' | dd of="$shard" bs=1 seek=5000 conv=notrunc 2>/dev/null
verdict "a flipped byte" complains "shard-0000.safetensors: checksum" convert "$run" "$t/x"
head -c 5000 "$t/shard" >"$shard"
verdict "a shard cut off" complains "shard-0000.safetensors: 5000 bytes" convert "$run" "$t/x"
rm "$shard"
verdict "a shard missing" complains "shard-0000.safetensors: cannot open" convert "$run" "$t/x"
cp "$t/shard" "$shard"
head -c 400 "$t/state.json" >"$step/state.json"
verdict "state.json cut off" complains "state.json" convert "$step" "$t/x"
sed 's/"dtype":"BF16"/"dtype":"F32"/' "$t/state.json" >"$step/state.json"
verdict "state.json changed" complains "state.json: its checksum" convert "$step" "$t/x"
cp "$t/state.json" "$step/state.json"
mv "$run/model" "$t/model"
verdict "no model folder" complains "config.json" convert "$step" "$t/x"
verdict "nothing was written by what failed" test ! -e "$t/x"
[ $failed -eq 0 ]
