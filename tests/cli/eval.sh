#!/bin/sh
# hadal eval on the command line: sh tests/cli/eval.sh HADAL
# The tasks on data with a small model of random weights: files made here, and the published ones when they are there.
# Prints "ok NAME" or "FAIL NAME".
hadal=$1
model=${MODEL:-tests/data/models/qwen2/checkpoint}
data=${HADAL_SHARED:-../shared}/data
t=$(mktemp -d) || exit 2
trap 'rm -rf "$t"' EXIT
export TERM=xterm LC_ALL=C.UTF-8
always="eval $model"
. "$(dirname "$0")/kit"

if ! command -v python3 >/dev/null; then
    echo "SKIP no python3"
    exit 0
fi
out_has() { grep -qF -- "$1" "$t/out"; }
# py EXPRESSION [FILE]: about `d`, the report, and `a`, the answers in FILE by number and sample
py() {
    python3 - "$1" "$t/out" "$t/${2:-none}" 2>>"$t/err" <<'PY'
import json, os, sys
d = json.load(open(sys.argv[2])) if open(sys.argv[2]).read(1) == "{" else None
a = {}
if os.path.exists(sys.argv[3]):
    for line in list(open(sys.argv[3]))[1:]:
        row = json.loads(line)
        a[row["number"], row["sample"]] = row
sys.exit(0 if eval("(" + sys.argv[1] + ")") else "not so: " + sys.argv[1])
PY
}

mkdir "$t/gsm8k" "$t/mmlu" "$t/mmlu/dev" "$t/mmlu/test"
python3 - "$t" <<'PY'
import csv, json, sys
t = sys.argv[1]
def write(name, rows):
    with open(t + "/" + name, "w") as f:
        f.writelines(json.dumps(row) + "\n" for row in rows)
write("gsm8k/test.jsonl", [{"question": "What is %d+1?" % i, "answer": "Easy.\n#### %d" % (i + 1)} for i in range(6)])
write("gsm8k/train.jsonl", [{"question": "What is %d+2?" % i, "answer": "Easy.\n#### %d" % (i + 2)} for i in range(6)])
write("math.jsonl", [{"problem": "What is $%d^2$?" % i, "answer": "%d" % (i * i)} for i in range(5)])
write("any.jsonl", [{"prompt": "Say %d" % i, "answer": i, "q": [{"role": "user", "content": "Hi"}]} for i in range(5)])
write("many.jsonl", [{"prompt": "Say %d" % i, "answer": i} for i in range(200)])
write("long.jsonl", [{"prompt": "x " * n, "answer": n} for n in (2, 200, 3)])
write("choices.jsonl", [{"question": "Which?", "choices": ["one", "two", "three"], "answer": "B"}] * 3)
write("HumanEval.jsonl", [{"task_id": "x/0", "prompt": "def f():\n    return 1  #", "entry_point": "f",
                           "test": "def check(c):\n    assert c() == 1\n"}])
for split, n in (("dev", 5), ("test", 4)):
    for subject in ("anatomy", "econometrics"):
        with open("%s/mmlu/%s/%s_%s.csv" % (t, split, subject, split), "w", newline="") as f:
            csv.writer(f).writerows(['Of "%s",\nwhich?' % subject, "a, b", "c", 'd "e"', "f", "ABCD"[i % 4]] for i in range(n))
PY

# ---- the tasks ----

verdict "gsm8k" eval 'h 0 --task gsm8k --data "$t/gsm8k" --max-tokens 4 --json -o "$t/g.jsonl" && py "
    d[\"prompts\"] == 6 and d[\"shots\"] == 5 and d[\"greedy\"][\"answers\"] == 6 and
    {\"accuracy\", \"standard_error\"} <= set(d[\"greedy\"][\"strict_match\"]) and \"flexible_extract\" in d[\"greedy\"] and
    len(a) == 6 and a[3, 0][\"prompt\"].count(\"Question: \") == 6 and a[3, 0][\"prompt\"].endswith(\"What is 3+1?\nAnswer:\") and
    a[3, 0][\"answer\"] == \"4\"" g.jsonl'
verdict "math" eval 'h 0 --task math --data "$t/math.jsonl" --max-tokens 4 --samples 4 --json -o "$t/m.jsonl" && py "
    d[\"sampled\"][\"temperature\"] == 0.6 and d[\"sampled\"][\"top_p\"] == 0.95 and d[\"sampled\"][\"answers\"] == 20 and
    {\"pass_at_2\", \"pass_at_4\", \"cons_at_4\"} <= set(d[\"sampled\"]) and len(a) == 20 and
    a[1, 3][\"prompt\"].count(\"I hope it is correct.\") == 4" m.jsonl'
verdict "mmlu" eval 'h 0 --task mmlu --data "$t/mmlu" --json -o "$t/l.jsonl" && py "
    d[\"prompts\"] == 8 and set(d[\"likelihood\"][\"by_category\"]) == {\"stem\", \"social_sciences\"} and
    d[\"likelihood\"][\"by_subject\"][\"anatomy\"][\"prompts\"] == 4 and
    all(set(x[\"logprobs\"]) == set(\"ABCD\") and max(x[\"logprobs\"], key=x[\"logprobs\"].get) == x[\"extracted\"] for x in a.values())
    and sum(x[\"score\"] for x in a.values()) / 8 == d[\"likelihood\"][\"accuracy\"]" l.jsonl'
verdict "mmlu:SUBJECT" eval 'h 0 --task mmlu:econometrics --data "$t/mmlu" -n 3 --json && py "d[\"prompts\"] == 3"'
verdict "gpqa" eval 'h 0 --task gpqa --data "$t/choices.jsonl" --json -o "$t/c.jsonl" && py "
    all(set(x[\"logprobs\"]) == set(\"ABC\") for x in a.values())" c.jsonl'
verdict "humaneval" eval 'h 0 --task humaneval --data "$t/HumanEval.jsonl" --max-tokens 1 --json && py "d[\"greedy\"][\"accuracy\"] == 1"'
verdict "jsonl in a conversation" eval 'h 0 --task jsonl --data "$t/any.jsonl" --prompt-member q --chat --think on --max-tokens 3 --json -o "$t/q.jsonl" &&
    py "d[\"chat\"] and a[0, 0][\"prompt\"].endswith(\"<think>\")" q.jsonl'
verdict "a table" eval 'h 0 --task jsonl --data "$t/any.jsonl" --max-tokens 3 && out_has "standard error" && ! out_has "{"'
verdict "the same whatever the threads" eval 'h 0 --task jsonl --data "$t/any.jsonl" --samples 3 --max-tokens 5 --threads 1 --json && cp "$t/out" "$t/one" &&
    h 0 --task jsonl --data "$t/any.jsonl" --samples 3 --max-tokens 5 --threads 2 --json && cmp -s "$t/one" "$t/out"'

# ---- going on ----

verdict "a longer run goes on" eval 'h 0 --task jsonl --data "$t/any.jsonl" -n 2 --max-tokens 3 -o "$t/r.jsonl" && cp "$t/r.jsonl" "$t/first" &&
    h 0 --task jsonl --data "$t/any.jsonl" --max-tokens 3 -o "$t/r.jsonl" && [ "$(wc -l <"$t/r.jsonl")" -eq 6 ] &&
    head -n 3 "$t/r.jsonl" | cmp -s - "$t/first"'
verdict "a torn file goes on" eval 'head -c "$(($(wc -c <"$t/r.jsonl") - 9))" "$t/r.jsonl" >"$t/torn.jsonl" &&
    h 0 --task jsonl --data "$t/any.jsonl" --max-tokens 3 -o "$t/torn.jsonl" && [ "$(wc -l <"$t/torn.jsonl")" -eq 6 ] &&
    py "sorted(a) == [(i, 0) for i in range(5)]" torn.jsonl && head -n 5 "$t/r.jsonl" >"$t/a" && head -n 5 "$t/torn.jsonl" | cmp -s - "$t/a"'
verdict "other options, other file" eval 'h 2 --task jsonl --data "$t/any.jsonl" --max-tokens 4 -o "$t/r.jsonl" && one_line && err_has "max_tokens is 3 there and 4 here" &&
    h 2 --task jsonl --data "$t/any.jsonl" -o "$t/any.jsonl" && one_line && err_has "name another file"'
# begun SIGNAL FILE LINES ARGUMENTS...: starts a run and sends it the signal when the file has so many lines
begun() {
    signal=$1 file=$2 lines=$3
    shift 3
    "$hadal" $always "$@" -o "$file" >"$t/out" 2>"$t/err" </dev/null &
    pid=$!
    while kill -0 $pid 2>/dev/null && ! { [ -f "$file" ] && [ "$(wc -l <"$file")" -ge "$lines" ]; }; do sleep 0.02; done
    kill -"$signal" $pid 2>/dev/null
    wait $pid
    code=$?
}
many="--task jsonl --data $t/many.jsonl --samples 2 --max-tokens 100 --seed 5 --json"
verdict "kill -9" eval '{ begun KILL "$t/k.jsonl" 9 $many 2>/dev/null; true; } && head -n 9 "$t/k.jsonl" >"$t/a" && h 0 $many -o "$t/k.jsonl" &&
    py "d[\"sampled\"][\"answers\"] == 400 and sorted(a) == [(i, k) for i in range(200) for k in range(2)]" k.jsonl &&
    [ "$(wc -l <"$t/k.jsonl")" -eq 401 ] && head -n 9 "$t/k.jsonl" | cmp -s - "$t/a"'
verdict "Ctrl-C" eval 'begun INT "$t/i.jsonl" 1 --task jsonl --data "$t/any.jsonl" --samples 500 --temperature 1 --max-tokens 3000
    [ $code -eq 130 ] && [ ! -s "$t/out" ] && [ "$(wc -l <"$t/i.jsonl")" -eq 1 ]'

# ---- what is refused ----

verdict "no data" eval 'h 2 --task gsm8k && one_line && err_has -- "--data"'
verdict "no such file" eval 'h 2 --task gsm8k --data "$t/none.jsonl" --shots 0 && one_line && err_has none.jsonl'
verdict "a member is missing" eval 'h 2 --task math --data "$t/any.jsonl" && one_line && err_has "any.jsonl, row 1: \"problem\" is missing"'
verdict "an empty file" eval ': >"$t/empty.jsonl" && h 2 --task jsonl --data "$t/empty.jsonl" && one_line && err_has "no rows"'
verdict "a letter that is none" eval 'printf "q,a,b,c,d,E\n" >"$t/bad.csv" && h 2 --task gpqa --data "$t/bad.csv" && one_line && err_has "bad.csv, row 1"'
verdict "prompts longer than the context" eval 'h 0 --task jsonl --data "$t/long.jsonl" --context 50 --json && py "d[\"too_long\"] == 1 and
    d[\"prompts\"] == 3 and d[\"greedy\"][\"answers\"] == 2" && h 2 --task jsonl --data "$t/long.jsonl" --context 2 && one_line &&
    err_has "longer than the context"'
verdict "data for made-up prompts" eval 'h 2 --task tiny-r1 --data "$t/any.jsonl" && one_line && err_has "makes its prompts itself"'
verdict "an unknown task" eval 'h 2 --task gsm9k --data "$t/gsm8k" && one_line && err_has "gsm8k, math, mmlu"'

# ---- the published files ----

if [ -d "$data/mmlu" ]; then
    verdict "all subjects of MMLU" eval 'h 0 --task mmlu --data "$data/mmlu" -n 1 --shots 1 --json && py "
        d[\"prompts\"] == 57 and len(d[\"likelihood\"][\"by_subject\"]) == 57 and len(d[\"likelihood\"][\"by_category\"]) == 4"'
    verdict "GSM8K" eval 'h 0 --task gsm8k --data "$data/gsm8k" -n 3 --max-tokens 2 --json && py "d[\"shots\"] == 5"'
    verdict "MATH" eval 'h 0 --task math --data "$data/math" -n 3 --max-tokens 2 --json && py "d[\"shots\"] == 4"'
    verdict "HumanEval" eval 'h 0 --task humaneval --data "$data/humaneval" -n 2 --max-tokens 2 --json && py "d[\"greedy\"][\"accuracy\"] == 0"'
else
    echo "SKIP no published files at $data"
fi
[ $failed -eq 0 ]
