#!/bin/sh
# hadal grpo, sample, distill, dpo on the command line: sh tests/cli/post.sh HADAL
# What runs leave; exact going on after kill -9 and Ctrl-C; reward programs that misbehave; data and settings that cannot
# work; what a person sees. A hot model, so that any weights of this shape answer differently every time. Prints "ok NAME" or
# "FAIL NAME".
hadal=$1
model=${TINY:-models/tiny}
kit=$(dirname "$0")/post_kit.py
t=$(mktemp -d) || exit 2
trap 'rm -rf "$t"' EXIT
export TERM=xterm LC_ALL=C.UTF-8
. "$(dirname "$0")/kit"

# k CODE VERB ARGUMENTS...: post_kit.py
k() {
    want=$1
    shift
    python3 "$kit" "$@" >"$t/out" 2>"$t/err" </dev/null
    code=$?
    [ "$code" -eq "$want" ] || { echo "exit code $code, wanted $want: post_kit.py $*" >>"$t/err"; return 1; }
}
same() { k 0 same "$t/$1" "$t/$2"; }
lines() { k 0 lines "$t/$1" "$2"; }
out_has() { grep -qF -- "$1" "$t/out"; }
# g FOLDER KEYS...: a grpo run into $t/FOLDER that has to succeed
g() {
    folder=$1
    shift
    h 0 grpo $base "$rewards" "checkpoint.folder=$t/$folder" "$@"
}
# bad CODE WORDS KEYS...: grpo says so in one line and makes no folder
bad() {
    code=$1
    says=$2
    shift 2
    h "$code" grpo $base "$rewards" "checkpoint.folder=$t/none" "$@" && one_line && err_has "$says" && [ ! -e "$t/none" ]
}

if ! command -v python3 >/dev/null; then
    echo "SKIP no python3"
    exit 0
fi
h 0 data tiny-r1 "$t/q.jsonl" --task calc --documents 120 --seed 5 || echo "FAIL data"
h 0 data tiny-r1 "$t/held.jsonl" --task calc --documents 20 --held-out || echo "FAIL data"
: >"$t/empty.jsonl"
base="model.path=$model data.train=$t/q.jsonl data.seq_len=64 training.precision=f32 training.threads=2 rollout.max_tokens=24
    rollout.temperature=20 grpo.prompts=6 grpo.generations=4 optimizer.lr=1e-3 checkpoint.every=1 checkpoint.export=false"
rewards='rollout.rewards=[{name: format, pattern: "^[a-z<]"}, {name: finished, weight: 0.3}]'

# ---- what a person sees ----

for x in grpo sample distill dpo; do
    verdict "$x --help" eval 'h 0 $x --help && out_has "hadal $x RUN.yaml" && out_has "docs/$x.md"'
done
verdict "the rewards that there are" eval 'h 0 grpo --rewards && out_has accuracy && out_has program && h 0 sample --rewards && out_has cosine'
verdict "a run" eval 'g first training.steps=3 checkpoint.export=true && out_has "step 1/3  reward" && out_has "done after 3 steps" && [ ! -s "$t/err" ]'
verdict "what it leaves" eval 'cd "$t/first" && ls -d metrics.jsonl run.yaml samples.jsonl model/config.json step-00000003 hf-00000003/tokenizer.json \
    >"$t/out" 2>"$t/err"; code=$?; cd "$OLDPWD"; [ $code -eq 0 ]'
verdict "its metrics" lines first/metrics.jsonl '[x["step"] for x in m] == [0, 1, 2] and all(0 <= x["logprob_error_max"] < 1e-3 and
    abs(x["reward"] - x["format"] - 0.3 * x["finished"]) < 1e-9 and x["groups_without_signal"] <= 6 for x in m)'
verdict "its sample traces" lines first/samples.jsonl 'len(m) == 12 and all(x["step"] == 0 and x["prompt"].startswith("<user>") for x in m)'
verdict "the model that it made answers" h 0 run "$t/first/hf-00000003" --raw -p "<user>c1+1+1+1+1<assistant>" -n 4
verdict "--quiet" eval 'g quiet training.steps=2 -q && [ "$(wc -l <"$t/out")" -eq 1 ]'
verdict "--json" eval 'g json training.steps=3 --json && [ ! -s "$t/err" ] && cp "$t/out" "$t/json.jsonl" &&
    lines json.jsonl "len(m) == 4 and [x[\"step\"] for x in m[:3]] == [1, 2, 3] and m[3][\"stopped\"] is False and all(\"reward\" in x for x in m[:3])"'
verdict "run.yaml describes the same run" eval 'h 0 grpo "$t/json/run.yaml" "checkpoint.folder=$t/again" && same json again'
verdict "one thread makes the same run" eval 'g one training.steps=3 training.threads=1 && same json one'

# ---- exactly the same run, whatever stops it ----

long="training.steps=14 grpo.kl_beta=0.05 grpo.reference_every=3 grpo.batch=8 grpo.epochs=2 data.validation=$t/held.jsonl
    data.validation_rows=6 training.validate_every=4 checkpoint.keep_best=true"
verdict "unbroken" eval 'g whole $long && lines whole/metrics.jsonl "len(m) == 14 and [x[\"step\"] for x in m if \"validation_reward\" in x] ==
    [3, 7, 11, 13] and \"before_reward\" in m[0] and m[0][\"ratio_max\"] > 1.0001 and m[13][\"kl\"] > 0"'
for x in 1 2; do
    verdict "kill -9 in rollouts, updates and saves, $x" eval 'rm -rf "$t/kill"; k 0 storm $x 8 "$hadal" grpo $base $long "$rewards" "checkpoint.folder=$t/kill" &&
        same whole kill'
done
long="training.steps=10 grpo.kl_beta=0.05 grpo.reference_every=3 grpo.batch=8 grpo.epochs=2"
verdict "Ctrl-C between steps and in them" eval 'g plain $long && for x in 1 2 3; do
    k 130 press 2 $x 0.0$x "$hadal" grpo $base $long "$rewards" "checkpoint.folder=$t/int" --json || break; done && g int $long && same plain int'
long="training.steps=10 grpo.kl_beta=0.05 lora.rank=4 lora.target_modules=[q_proj,o_proj] grpo.dynamic_sampling=true rollout.top_p=0.95"
verdict "adapters, dynamic sampling" eval 'g lora $long && lines lora/metrics.jsonl "abs(m[0][\"kl\"]) < 1e-9 and m[9][\"kl\"] != 0" &&
    [ -s "$t/lora/adapter/adapter_model.safetensors" ]'
verdict "killed" eval 'k 0 storm 3 6 "$hadal" grpo $base $long "$rewards" "checkpoint.folder=$t/lorakill" && same lora lorakill &&
    cmp "$t/lora/adapter/adapter_model.safetensors" "$t/lorakill/adapter/adapter_model.safetensors"'
long="training.steps=2 grpo.prompts=800"
verdict "Ctrl-C in a rollout" eval 'k 130 press 2 0 1 "$hadal" grpo $base $long "$rewards" "checkpoint.folder=$t/roll" &&
    out_has "stopped after" && out_has "the same command goes on" && [ -n "$(ls -d "$t/roll"/step-0000000?)" ]'
verdict "and on" eval 'g roll $long && g rolled $long && same roll rolled'

# ---- rewards ----

cat >"$t/reward.py" <<'PY'
import json, os, sys, time
for i, line in enumerate(sys.stdin):
    if i == 3 and sys.argv[1] == "crash":
        os._exit(3)
    if i == 3 and sys.argv[1] == "hang":
        time.sleep(1000)
    if sys.argv[1] == "garbage":
        print("what?", flush=True)
    else:
        print(json.dumps({"score": len(json.loads(line)["completion"]) % 2}), flush=True)
PY
cp "$t/reward.py" /tmp/hadal-post-reward-$$.py # where programs can read it
trap 'rm -rf "$t" /tmp/hadal-post-reward-$$.py' EXIT
program() {
    says=$1
    shift
    rewards="rollout.rewards=[{name: program, command: [python3, /tmp/hadal-post-reward-$$.py, $1], seconds: 1}]"
    rm -rf "$t/program"
    g program training.steps=2 && { [ -z "$says" ] || err_has "$says"; } && out_has "done after 2 steps"
}
kept=$rewards
verdict "a program as a reward" eval 'program "" fine && [ ! -s "$t/err" ] && lines program/metrics.jsonl "all(0 < x[\"program\"] < 1 and \"not_judged\" not in x for x in m)"'
verdict "that crashes" eval 'program "completions have no score; the first: it ended with exit status 3" crash &&
    lines program/metrics.jsonl "all(0 < x[\"not_judged\"] < 1 and x[\"grad_norm\"] > 0 for x in m)"'
verdict "that hangs" eval 'program "no answer in 1 s" hang && lines program/metrics.jsonl "all(0 < x[\"not_judged\"] < 1 for x in m)"'
verdict "that prints garbage" eval 'program "its answer is not a number" garbage && err_has "weights stay as they are" &&
    lines program/metrics.jsonl "all(x[\"not_judged\"] == 1 and \"reward\" not in x for x in m)"'
rewards='rollout.rewards=[{name: format, pattern: "^"}]'
verdict "equal rewards" eval 'g equal training.steps=2 && err_has "no completion of this step has anything to teach" && out_has "done after 2 steps"'
verdict "equal rewards with dynamic sampling" eval 'h 2 grpo $base "$rewards" "checkpoint.folder=$t/dynamic" training.steps=2 \
    grpo.dynamic_sampling=true grpo.most_rollouts=3 && err_has "in 3 rollouts of 6 prompts all completions of every prompt got the same reward"'
rewards=$kept

# ---- what cannot work ----

verdict "prompts longer than the context" bad 2 "prompts are longer than" data.seq_len=26
verdict "no room for a prompt" bad 2 "leaves no room for a prompt" data.seq_len=24
verdict "some prompts are too long" eval 'python3 -c "
import json, sys
for n in (3, 90, 4, 5, 95, 6): print(json.dumps({\"prompt\": \"<user>\" + \"1\" * n + \"<assistant>\"}))" >"$t/some.jsonl" &&
    g some training.steps=1 "data.train=$t/some.jsonl" && err_has "2 of 6 prompts are left out: they are longer than 40 tokens"'
verdict "empty data" bad 2 "no prompts" "data.train=$t/empty.jsonl"
verdict "no such data" bad 2 "/nowhere.jsonl" data.train=/nowhere.jsonl
verdict "no rewards" bad 2 "rollout.rewards is missing" rollout.rewards=null
verdict "an unknown reward" bad 2 "acuracy" "rollout.rewards=[{name: acuracy}]"
verdict "a reward that is called as a metric" bad 2 "is the name of another metric" "rollout.rewards=[{name: format, as: kl}]"
verdict "a program that is not there" bad 1 "no-such-program" "rollout.rewards=[{name: program, command: no-such-program}]"
verdict "temperature 0" bad 2 "rollout.temperature is 0" rollout.temperature=0
verdict "ranks" bad 2 "training.ranks" training.ranks=2
verdict "adapters and a reference that is refreshed" bad 2 "grpo.reference_every" grpo.reference_every=2 grpo.kl_beta=0.1 lora.rank=2 lora.target_modules=[q_proj]
verdict "a key that is none" bad 2 "did you mean grpo.generations" grpo.generation=4
verdict "no run file" eval 'h 2 grpo && err_has "--help"'

# ---- sampling ----

base="model.path=$model data.train=$t/q.jsonl data.seq_len=64 training.precision=f32 training.threads=2 rollout.max_tokens=24
    rollout.temperature=20 rollout.sequences=12 sample.samples=6 sample.threshold=0.3"
s() { h 0 sample $base "$rewards" "sample.output=$t/$1" $2 $3; }
verdict "sampling" eval 's traces.jsonl && out_has "completions of 120 prompts kept" && [ ! -e "$t/traces.jsonl.partial" ] &&
    lines traces.jsonl "len(m) > 10 and all(x[\"reward\"] >= 0.3 and x[\"prompt\"] and x[\"tokens\"] <= 24 for x in m)"'
verdict "killed again and again" eval 'k 0 partial "$t/killed.jsonl" 4 6 "$hadal" sample $base "$rewards" "sample.output=$t/killed.jsonl" &&
    cmp "$t/traces.jsonl" "$t/killed.jsonl"'
verdict "Ctrl-C" eval 'k 130 press 2 2 0 "$hadal" sample $base "$rewards" "sample.output=$t/int.jsonl" --json && [ -e "$t/int.jsonl.partial" ] &&
    [ ! -e "$t/int.jsonl" ] && s int.jsonl && cmp "$t/traces.jsonl" "$t/int.jsonl"'
verdict "--json of it" eval 's json2.jsonl --json && cp "$t/out" "$t/said.jsonl" && lines said.jsonl "m[-1][\"kept\"] > 0 and m[-1][\"stopped\"] is False"'
verdict "what is there is not written over" eval 'h 2 sample $base "$rewards" "sample.output=$t/traces.jsonl" && one_line && err_has "is there already"'

# ---- distillation and preferences ----

base="model.path=$model data.train=$t/traces.jsonl data.seq_len=64 training.batch=4 training.steps=3 training.threads=2 optimizer.lr=1e-3"
verdict "distillation of traces" eval 'h 0 distill $base data.loss=assistant "checkpoint.folder=$t/sft" && out_has "model in" && [ -d "$t/sft/hf-00000003" ]'
verdict "of a distribution" eval 'h 0 distill $base distill.kind=forward "distill.teacher=$model" "checkpoint.folder=$t/kl" --json && cp "$t/out" "$t/kl.jsonl" &&
    lines kl.jsonl "len(m) == 4 and abs(m[0][\"loss\"]) < 0.01"'
verdict "without a teacher" eval 'h 2 distill $base distill.kind=reverse "checkpoint.folder=$t/none" && one_line && err_has "distill.teacher is missing"'
python3 - "$t" <<'PY'
import json, sys
with open(sys.argv[1] + "/pairs.jsonl", "w") as f:
    for i in range(8):
        f.write(json.dumps({"prompt": "<user>c%d+1<assistant>" % i, "chosen": "<answer>%d</answer>" % (i + 1), "rejected": "<think>%d" % i}) + "\n")
PY
verdict "preferences" eval 'h 0 dpo $base "data.train=$t/pairs.jsonl" data.validation="$t/pairs.jsonl" "checkpoint.folder=$t/dpo" --json && cp "$t/out" "$t/dpo.jsonl" &&
    lines dpo.jsonl "abs(m[0][\"loss\"] - 0.6931471805) < 1e-6 and m[2][\"margin\"] > 0 and \"validation_preferred\" in m[2]" &&
    h 0 run "$t/dpo/hf-00000003" --raw -p "<user>" -n 2'
verdict "rows that are no pairs" eval 'h 2 dpo $base "checkpoint.folder=$t/none" && one_line && err_has "\"chosen\" is missing"'
[ $failed -eq 0 ]
