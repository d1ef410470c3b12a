#!/bin/sh
# hadal r1 on the command line: sh tests/cli/r1.sh HADAL
# A whole pipeline of a tiny model: what its stages leave, that it goes on after Ctrl-C and kill -9 with the same result, the plan,
# changes after a stage, what is refused before anything runs. Prints "ok NAME" or "FAIL NAME".
hadal=$1
base=$(pwd)/${TINY:-models/tiny-base}
kit=$(dirname "$0")/train_kit.py
t=$(mktemp -d) || exit 2
trap 'rm -rf "$t"' EXIT
export LC_ALL=C.UTF-8
. "$(dirname "$0")/kit"

k() {
    want=$1
    shift
    python3 "$kit" "$@" >"$t/out" 2>"$t/err" </dev/null
    code=$?
    [ "$code" -eq "$want" ] || { echo "exit code $code, wanted $want: train_kit.py $*" >>"$t/err"; return 1; }
}
out_has() { grep -qF -- "$1" "$t/out"; }
page_has() { grep -qF -- "$1" "$t/run/report.html" || { echo "the page lacks $1" >>"$t/err"; return 1; }; }

if ! command -v python3 >/dev/null || [ ! -f "$base/config.json" ]; then
    echo "SKIP no python3, or no $base"
    exit 0
fi
"$hadal" data tiny-r1 "$t/prompts.jsonl" --task calc --phase work --documents 300 --seed 5 >/dev/null
"$hadal" data tiny-r1 "$t/held.jsonl" --task calc --held-out --documents 12 --seed 9 >/dev/null
cat >"$t/common.yaml" <<YAML
model: {path: $base}
data: {seq_len: 96}
training: {precision: f32, threads: 1}
optimizer: {lr: 5e-4, weight_decay: 0}
rollout:
  max_tokens: 48
  rewards: [{name: tiny_r1, as: accuracy, needs: format}, {name: format, weight: 0.1, finished: true,
             pattern: '^<think>[^<]*</think><answer>[^<]*</answer>\z'}]
grpo: {prompts: 8, generations: 4, loss: dapo, train_router: false}
checkpoint: {every: 2}
YAML
cat >"$t/r1.yaml" <<YAML
defaults: common.yaml
folder: $t/run
stages:
  - name: cold
    kind: sft
    data: {train: [$t/prompts.jsonl], loss: assistant, packing: none}
    training: {steps: 4, batch: 8}
  - name: rl
    kind: grpo
    model: {path: "@cold"}
    data: {train: [$t/prompts.jsonl], validation: [$t/held.jsonl]}
    training: {steps: 6, validate_every: 3}
  - name: best
    kind: sample
    model: {path: "@rl"}
    data: {train: [$t/held.jsonl]}
    sample: {samples: 4, keep: all, most: 2}
  - name: student
    kind: sft
    data: {train: ["@best"], loss: assistant, packing: none}
    training: {steps: 3, batch: 4}
  - name: score
    kind: eval
    model: {path: "@student"}
    eval: {tasks: [{task: "tiny-r1:calc", limit: 8, samples: 2}]}
YAML

verdict "help" eval 'h 0 r1 --help && out_has "--dry-run" && out_has "stages.NAME"'
verdict "the plan" eval 'h 0 r1 "$t/r1.yaml" --dry-run && out_has "6 steps of 8 prompts, 32 completions" && out_has "model $t/run/01-cold/hf" &&
    out_has "data  $t/run/03-best/best.jsonl" && [ ! -e "$t/run" ]'
verdict "the plan as JSON" eval 'h 0 r1 "$t/r1.yaml" --dry-run --json && python3 -c "import json, sys
p = json.load(open(sys.argv[1]))
assert [s[\"kind\"] for s in p[\"stages\"]] == [\"sft\", \"grpo\", \"sample\", \"sft\", \"eval\"]" "$t/out" 2>>"$t/err"'

# ---- one run without a break, one that is stopped and killed ----

verdict "all stages" eval 'h 0 r1 "$t/r1.yaml" && out_has "done after 13 steps" && err_has "stage 2 of 5: rl (grpo), in $t/run/02-rl"'
verdict "what they leave" eval 'ls "$t/run/01-cold/hf-00000004/config.json" "$t/run/02-rl/hf-00000006/model.safetensors" "$t/run/02-rl/samples.jsonl" \
    "$t/run/03-best/best.jsonl" "$t/run/04-student/hf-00000003/tokenizer.json" "$t/run/05-score/eval.json" >"$t/out" 2>"$t/err"'
verdict "the page" eval 'page_has "5 of 5 stages done" && page_has "Completion length" && page_has "What it wrote" && page_has "tiny-r1:calc, sampled, accuracy" &&
    ! grep -q "http" "$t/run/report.html"'
verdict "over, once more" eval 'cp -r "$t/run" "$t/copy" && h 0 r1 "$t/r1.yaml" && out_has "done after 0 steps" && err_has "stage 4 of 5: student (sft), done before" &&
    diff -r "$t/run" "$t/copy" >>"$t/err"'
verdict "Ctrl-C in the second stage" eval 'k 130 stop 2 6 "$hadal" r1 "$t/r1.yaml" "folder=$t/int" && [ -f "$t/int/01-cold/stage.json" ] &&
    [ ! -f "$t/int/02-rl/stage.json" ] && grep -q "under way" "$t/int/report.html"'
verdict "and the same command goes on" eval 'h 0 r1 "$t/r1.yaml" "folder=$t/int" && err_has "stage 1 of 5: cold (sft), done before" && err_has "going on from"'
verdict "kill -9 in every stage" eval 'k 0 storm 1 4 "$hadal" r1 "$t/r1.yaml" "folder=$t/kill" checkpoint.every=1'
for other in int kill; do
    verdict "to the same model ($other)" eval 'cmp "$t/run/02-rl/hf-00000006/model.safetensors" "$t/$other/02-rl/hf-00000006/model.safetensors" 2>>"$t/err" &&
        cmp "$t/run/03-best/best.jsonl" "$t/$other/03-best/best.jsonl" 2>>"$t/err" &&
        cmp "$t/run/04-student/hf-00000003/model.safetensors" "$t/$other/04-student/hf-00000003/model.safetensors" 2>>"$t/err" &&
        cmp "$t/run/05-score/eval.json" "$t/$other/05-score/eval.json" 2>>"$t/err"'
done
verdict "a changed stage that is done" eval 'h 2 r1 "$t/r1.yaml" stages.rl.optimizer.lr=1e-4 && one_line && err_has "stage 2 (rl): it is done with optimizer.lr"'
verdict "its folder away, it runs again" eval 'rm -rf "$t/run/02-rl" "$t/run/03-best" "$t/run/04-student" "$t/run/05-score" &&
    h 0 r1 "$t/r1.yaml" stages.rl.optimizer.lr=1e-4 && out_has "done after 9 steps" &&
    ! cmp -s "$t/run/02-rl/hf-00000006/model.safetensors" "$t/copy/02-rl/hf-00000006/model.safetensors"'
verdict "--json" eval 'h 0 r1 "$t/r1.yaml" "folder=$t/json" --json && python3 -c "import json, sys
d = [json.loads(l) for l in open(sys.argv[1])]
assert d[-1][\"done\"] == 5 and not d[-1][\"stopped\"] and d[-1][\"report\"].endswith(\"report.html\"), d[-1]
assert [x[\"step\"] for x in d if \"reward\" in x and x[\"steps\"] == 6] == [1, 2, 3, 4, 5, 6]" "$t/out" 2>>"$t/err"'

# ---- refused before anything runs ----

verdict "no file" eval 'h 2 r1 "$t/gone.yaml" && one_line'
verdict "no stages" eval 'h 2 r1 "$t/common.yaml" && one_line && err_has "folder is missing"'
verdict "a pipeline is no run file" eval 'h 2 train "$t/r1.yaml" && one_line && err_has "hadal r1"'
verdict "a wrong key in the last stage" eval 'h 2 r1 "$t/r1.yaml" "folder=$t/no" stages.score.optimizer.lrr=1 && one_line && err_has "did you mean optimizer.lr?" &&
    [ ! -e "$t/no" ]'
verdict "a wrong reward" eval 'h 2 r1 "$t/r1.yaml" "folder=$t/no" "stages.rl.rollout.rewards=[{name: acuracy}]" && one_line && err_has "stage 2 (rl)" && [ ! -e "$t/no" ]'
verdict "a wrong task" eval 'h 2 r1 "$t/r1.yaml" "folder=$t/no" "stages.score.eval.tasks=[{task: gsm9k}]" && one_line && err_has "stage 5 (score)" &&
    h 2 r1 "$t/r1.yaml" "folder=$t/no" "stages.score.eval.tasks=[{task: tiny-r1, sampels: 4}]" && one_line && err_has "sampels" && [ ! -e "$t/no" ]'
verdict "one warning for keys of other engines" eval 'h 0 r1 "$t/r1.yaml" "folder=$t/warn" cluster.num_nodes=2 &&
    [ "$(grep -c "keys of other engines, which do nothing here: cluster" "$t/err")" -eq 1 ]'
[ $failed -eq 0 ]
