#!/bin/sh
# The command line as its users meet it: sh tests/cli/run.sh HADAL [MODEL [MODEL_WITH_MTP]]
# MODEL is a small folder with tokenizer and chat template. Logits of another implementation are expected beside it in
# golden_logits.jsonl; without that file its own logits serve.
# What needs a model that is missing is skipped, with a line that says so. Prints "ok NAME" or "FAIL NAME".
hadal=$1
model=${2:-${MODEL:-tests/data/models/v3_mtp/checkpoint}}
mtp=${3:-${MODEL_MTP:-tests/data/models/v3_mtp/checkpoint}}
commands='run chat info tokenize convert init check trace bench train data eval plot completion help version'
t=$(mktemp -d) || exit 2
trap 'rm -rf "$t"' EXIT
export XDG_STATE_HOME="$t/state" TERM=xterm LC_ALL=C.UTF-8
. "$(dirname "$0")/kit"

out_has() { grep -qF -- "$1" "$t/out"; }
is_json() { python3 -m json.tool <"$t/out" >"$t/json" 2>>"$t/err"; }
# py EXPRESSION: about `d`, the JSON objects of the output's lines
py() {
    python3 -c 'import json,sys
d = [json.loads(l) for l in open(sys.argv[1])]
sys.exit(0 if eval(sys.argv[2]) else "not so: " + sys.argv[2])' "$t/out" "$1" 2>>"$t/err"
}
# on_terminal ARGUMENTS...: the same with a terminal for input and output; lines of $t/keys are typed one by one, ^C is Ctrl-C
terminal_verdict() { # as verdict, where the system has pseudo-terminals
    if python3 -c 'import pty; pty.openpty()' 2>/dev/null; then verdict "$@"; else echo "SKIP $1: no pseudo-terminal here"; fi
}
on_terminal() {
    python3 - "$t/keys" "$hadal" "$@" >"$t/out" 2>"$t/err" <<'PY'
import os, pty, re, select, sys, time
lines = re.findall(rb"\^C\n?|[^\n^]+\n?", open(sys.argv[1], "rb").read()) if os.path.exists(sys.argv[1]) else []
pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.argv[2], sys.argv[2:])
quiet = time.time()
while True:
    if select.select([fd], [], [], 0.05)[0]:
        try:
            b = os.read(fd, 65536)
        except OSError:
            break
        if not b:
            break
        sys.stdout.buffer.write(b)
        quiet = time.time()
        continue
    if lines and time.time() - quiet > 0.3:
        os.write(fd, lines.pop(0).replace(b"^C\n", b"\x03").replace(b"^C", b"\x03"))
        quiet = time.time()
    if time.time() - quiet > 60:
        os.kill(pid, 9)
sys.stdout.flush()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 255)
PY
}

# ---- without a model ----

for c in $commands; do
    verdict "help of $c" eval 'h 0 $c --help && out_has "usage: hadal $c" && out_has Examples: && out_has "  hadal $c" ||
        { [ $c = completion ] && out_has "hadal completion"; }'
    verdict "hadal help $c" eval 'h 0 help $c && out_has "usage: hadal $c"'
done
verdict "general help" eval 'h 0 --help && for c in $commands; do out_has "  $c" || exit 1; done'
verdict "version" eval 'h 0 --version && out_has "hadal " && h 0 version'
verdict "no command" eval 'h 2 && one_line'
verdict "unknown command suggests" eval 'h 2 tokenise && one_line && err_has "did you mean '"'tokenize'"'"'
verdict "unknown option suggests" eval 'h 2 run . --temprature 1 && one_line && err_has "did you mean --temperature" &&
    err_has "hadal run --help"'
verdict "value missing" eval 'h 2 run . --top-k && one_line && err_has "--top-k wants"'
verdict "value not a number" eval 'h 2 run . --top-k many && one_line'
verdict "value out of range" eval 'h 2 run . --top-p 1.5 && one_line && err_has "0 to 1"'
verdict "value no choice" eval 'h 2 convert a b --to int3 && one_line && err_has "bf16|f32|fp8"'
verdict "switch with a value" eval 'h 2 info . --json=yes && one_line'
verdict "argument missing" eval 'h 2 info && one_line'
verdict "argument too many" eval 'h 2 info a b && one_line'
verdict "exclusive options" eval 'h 2 run . -p a -f b && one_line || h 2 tokenize . text --decode 1 && one_line'
for c in run chat info check trace tokenize bench; do
    case $c in
    run) more='-p x' ;;
    check) more='--golden /dev/null' ;;
    trace) more="--golden /dev/null -o $t/x" ;;
    tokenize) more='text' ;;
    *) more= ;;
    esac
    verdict "missing model of $c" eval 'h 2 $c "$t/none" $more && one_line && err_has "$t/none"'
done
verdict "folder without a model" eval 'mkdir "$t/empty" && h 2 run "$t/empty" -p x && one_line && err_has config.json'
verdict "escapes in a message" eval 'h 2 info "$(printf "no\033[31mne\nx")" && one_line && ! grep -q "$(printf "\033")" "$t/err"'
verdict "full disk" eval '"$hadal" --help >/dev/full 2>"$t/err"; [ $? -eq 1 ] && [ "$(wc -l <"$t/err")" -eq 1 ]'
verdict "closed pipe" eval '(trap "" PIPE; sleep 0.1; "$hadal" --help 2>"$t/err") | true; [ ! -s "$t/err" ]'
if command -v bash >/dev/null; then
    verdict "completion" eval 'h 0 completion && bash -c "source $t/out; COMP_WORDS=(hadal run --temp); COMP_CWORD=2; _hadal;
        [ \"\${COMPREPLY[*]}\" = --temperature ]"'
fi

for a in "data tiny-r1" "plot" "eval"; do verdict "argument missing of $a" eval 'h 2 $a && one_line'; done
verdict "data tiny-r1" eval 'h 0 data tiny-r1 "$t/a.jsonl" -n 50 --phase mixed --json && is_json && h 0 data tiny-r1 "$t/b.jsonl" -n 50 --phase mixed &&
    cmp -s "$t/a.jsonl" "$t/b.jsonl" && [ "$(wc -l <"$t/a.jsonl")" -eq 50 ] && h 2 data sums "$t/c" && one_line && err_has tiny-r1'
verdict "eval tiny-r1" eval 'h 0 init tiny "$t/tiny" && h 0 eval "$t/tiny" --task tiny-r1 -n 8 --json && is_json && cp "$t/out" "$t/first" &&
    h 0 eval "$t/tiny" --task tiny-r1 -n 8 --json && cmp -s "$t/out" "$t/first" && h 2 eval "$t/tiny" --task sums && one_line'
verdict "plot" eval 'mkdir "$t/run" && echo "{\"step\": 0, \"loss\": 1}" >"$t/run/metrics.jsonl" && h 0 plot "$t/run" && grep -q "</svg>" "$t/run/metrics.svg" &&
    h 2 plot "$t/none" && one_line && h 2 plot "$t" && one_line'

# ---- with a model ----

if [ ! -f "$model/config.json" ]; then
    echo "SKIP no model at $model"
    [ $failed -eq 0 ]
    exit
fi
golden=$(dirname "$model")/golden_logits.jsonl
prompt='The expert with'
greedy='--temperature 0 -n 12 --ignore-eos'

verdict "info" eval 'h 0 info "$model" && out_has parameters && ! out_has "{"'
verdict "info --json" eval 'h 0 info "$model" --json && is_json && h 0 info "$model/config.json" --json && is_json'

verdict "tokenize" eval 'h 0 tokenize "$model" "$prompt"'
verdict "tokenize --json" eval 'h 0 tokenize "$model" "$prompt" --json && is_json'
verdict "tokenize --count" eval 'h 0 tokenize "$model" --no-special --count "$prompt" && n=$(cat "$t/out") && [ "$n" -gt 1 ] &&
    h 0 tokenize "$model" --no-special --ids "$prompt" && [ "$(wc -w <"$t/out")" -eq "$n" ]'
verdict "tokenize --decode" eval 'h 0 tokenize "$model" --no-special --ids "$prompt" &&
    h 0 tokenize "$model" --decode "$(cat "$t/out")" && [ "$(cat "$t/out")" = "$prompt" ]'
verdict "tokenize a pipe" eval 'h 0 tokenize "$model" --ids "$prompt" && cp "$t/out" "$t/ids" &&
    echo "$prompt" | "$hadal" tokenize "$model" --ids | cmp - "$t/ids"'
verdict "tokenize --decode of nonsense" eval 'h 2 tokenize "$model" --decode "1 two" && one_line'
verdict "tokenize --decode out of range" eval 'h 2 tokenize "$model" --decode 2000000000 && one_line'
printf '[{"role": "user", "content": "Hello there"}]' >"$t/chat.json"
verdict "tokenize --chat" eval 'h 0 tokenize "$model" --chat "$t/chat.json" && out_has "Hello there" &&
    h 0 tokenize "$model" --chat "$t/chat.json" --count && [ "$(cat "$t/out")" -gt 2 ]'
verdict "tokenize --chat of nonsense" eval 'echo "[1]" >"$t/bad.json" && h 2 tokenize "$model" --chat "$t/bad.json" && one_line'

verdict "run" eval 'h 0 run "$model" -p "$prompt" -n 4 --seed 1 && [ ! -s "$t/err" ]'
verdict "run --stats" eval 'h 0 run "$model" -p "$prompt" -n 4 --stats && err_has tokens/s'
verdict "run --json" eval 'h 0 run "$model" -p "$prompt" $greedy --json && is_json &&
    py "len(d) == 1 and len(d[0][\"ids\"]) == 12 and d[0][\"finish\"] == \"length\" and \"content\" in d[0]"'
cp "$t/out" "$t/one"
verdict "run through a pipe" eval 'echo "$prompt" | "$hadal" run "$model" $greedy --json >"$t/out" && cat "$t/one" >>"$t/out" &&
    py "d[0][\"ids\"] == d[1][\"ids\"]"'
verdict "run -f" eval 'echo "$prompt" >"$t/prompt" && h 0 run "$model" -f "$t/prompt" $greedy --json && cat "$t/one" >>"$t/out" &&
    py "d[0][\"ids\"] == d[1][\"ids\"]"'
verdict "run, a batch like its parts" eval 'h 0 run "$model" -p "A much longer prompt than the other" -p "$prompt" $greedy --json &&
    cat "$t/one" >>"$t/out" && py "len(d) == 3 and d[1][\"ids\"] == d[2][\"ids\"] and d[0][\"ids\"] != d[1][\"ids\"]"'
verdict "run, a batch with headings" eval 'h 0 run "$model" -p one -p two -n 2 && out_has "--- 1: one" && out_has "--- 2: two"'
verdict "run --seed" eval 'h 0 run "$model" -p x -n 8 --temperature 1 --seed 5 --json && cp "$t/out" "$t/a" &&
    h 0 run "$model" -p x -n 8 --temperature 1 --seed 5 --threads 1 --json && cat "$t/a" >>"$t/out" &&
    py "d[0][\"ids\"] == d[1][\"ids\"]"'
verdict "run --logprobs" eval 'h 0 run "$model" -p x -n 3 --ignore-eos --temperature 0 --logprobs 2 --json &&
    py "[t[\"id\"] for t in d[0][\"logprobs\"]] == d[0][\"ids\"] and all(len(t[\"top\"]) == 2 and
        t[\"top\"][0][\"id\"] == t[\"id\"] for t in d[0][\"logprobs\"])"'
verdict "run --raw" eval 'h 0 run "$model" --raw -p "$prompt" -n 3 --json && py "\"content\" not in d[0]"'
verdict "run, prompt too long" eval 'h 2 run "$model" --raw -p "$prompt $prompt $prompt $prompt" -c 4 && one_line'
verdict "run, compute and kernels" eval 'h 0 run "$model" -p x -n 2 --compute f32 --kernels portable'
rm -f "$t/keys"
terminal_verdict "run on a terminal is coloured" eval 'on_terminal run "$model" -p x -n 4 --think on && grep -q "$(printf "\033\\[2m")" "$t/out"'
terminal_verdict "NO_COLOR" eval 'NO_COLOR=1 on_terminal run "$model" -p x -n 4 --think on && ! grep -q "$(printf "\033")" "$t/out"'

printf 'Hello\n/help\n/stats\n/regen\n/save %s\nmore\\\nand more\n/reset\n/load %s\n/nonsense\n/quit\nnever read\n' \
    "$t/saved.json" "$t/saved.json" >"$t/lines"
verdict "chat through a pipe" eval '"$hadal" chat "$model" -n 6 <"$t/lines" >"$t/out" 2>"$t/err" && out_has /regen &&
    out_has "Saved 2 messages" && out_has "Loaded 2 messages" && out_has "/nonsense is no command" && [ ! -s "$t/err" ]'
verdict "chat saves JSON" eval 'python3 -c "import json,sys; m = json.load(open(sys.argv[1]))[\"messages\"]
sys.exit([x[\"role\"] for x in m] != [\"user\", \"assistant\"] or m[0][\"content\"] != \"Hello\")" "$t/saved.json" &&
    h 0 tokenize "$model" --chat "$t/saved.json"'
verdict "chat, context full" eval 'printf "%s %s %s %s\n" a b c d | "$hadal" chat "$model" -c 4 >"$t/out" 2>"$t/err" && out_has "does not fit"'
printf 'Hello\n^C\nunfinished^C\n/stats\n^C\n^C\n' >"$t/keys"
terminal_verdict "chat on a terminal, Ctrl-C" eval 'on_terminal chat "$model" -n 4 && out_has "/help lists" && out_has "Ctrl-C again" &&
    out_has "messages," && grep -q "^Hello" "$t/state/hadal/history"'

verdict "convert" eval 'h 0 convert "$model" "$t/f32" --to f32 && h 0 info "$t/f32" --json && is_json &&
    h 0 run "$t/f32" -p x -n 2'
verdict "convert onto a file" eval 'h 1 convert "$model" "$t/prompt" --to f32 && one_line'
verdict "init" eval 'h 0 init "$model/config.json" "$t/random" --seed 3 && h 0 info "$t/random" --json && is_json'
verdict "bench" eval 'h 0 bench "$model" --prompt 8 --generate 2 --repeat 1 --json && is_json'
verdict "check --write" eval 'h 0 check "$model" --write "$t/own.jsonl" -p "$prompt" -p "And another one" &&
    [ "$(wc -l <"$t/own.jsonl")" -eq 2 ]'
[ -f "$golden" ] || golden=$t/own.jsonl
verdict "check passes" eval 'h 0 check "$model" --golden "$golden" && tail -n 1 "$t/out" | grep -q "^pass"'
verdict "check --json" eval 'h 0 check "$model" --golden "$golden" --json && py "d[-1][\"pass\"] is True"'
verdict "check fails" eval 'h 1 check "$model" --golden "$golden" --max-kl 0 --compute bf16 && tail -n 1 "$t/out" | grep -q "^FAIL"'
if [ -f "$mtp/config.json" ]; then
    verdict "run --drafts, the same answer" eval 'h 0 run "$mtp" -p "$prompt" $greedy --drafts 1 --json && cp "$t/out" "$t/a" &&
        h 0 run "$mtp" -p "$prompt" $greedy --json && cat "$t/a" >>"$t/out" &&
        py "d[0][\"ids\"] == d[1][\"ids\"] and d[1][\"draft_proposed\"] > 0"'
else
    echo "SKIP no model with MTP at $mtp"
fi
[ $failed -eq 0 ]
