#!/bin/sh
# hadal train on the command line: sh tests/cli/train.sh HADAL
# What a run leaves, exact resume after Ctrl-C and kill -9, ranks, conversations, MTP, DSA, LoRA, what a person sees.
# Small models and data: a step takes milliseconds. Prints "ok NAME" or "FAIL NAME".
hadal=$1
models=${MODELS:-tests/data/models}
kit=$(dirname "$0")/train_kit.py
t=$(mktemp -d) || exit 2
trap 'rm -rf "$t"' EXIT
export TERM=xterm LC_ALL=C.UTF-8
. "$(dirname "$0")/kit"

# tr_ FOLDER KEYS...: a run into $t/FOLDER that has to succeed
tr_() {
    folder=$1
    shift
    h 0 train $base "checkpoint.folder=$t/$folder" "$@"
}
# k CODE VERB ARGUMENTS...: train_kit.py
k() {
    want=$1
    shift
    python3 "$kit" "$@" >"$t/out" 2>"$t/err" </dev/null
    code=$?
    [ "$code" -eq "$want" ] || { echo "exit code $code, wanted $want: train_kit.py $*" >>"$t/err"; return 1; }
}
same() { k 0 same "$t/$1" "$t/$2" $3; }
out_has() { grep -qF -- "$1" "$t/out"; }
err_has() { grep -qF -- "$1" "$t/err"; }
# py EXPRESSION FOLDER: about `m`, the lines of a run's metrics.jsonl
py() {
    python3 -c 'import json, sys
m = [json.loads(l) for l in open(sys.argv[2] + "/metrics.jsonl")]
sys.exit(0 if eval(sys.argv[1]) else "not so: " + sys.argv[1])' "$1" "$t/$2" 2>>"$t/err"
}

if ! command -v python3 >/dev/null; then
    echo "SKIP no python3"
    exit 0
fi
python3 - "$t" <<'PY'
import gzip, json, random, sys
r = random.Random(1)
words = "the cat sat on a mat and then it ran away from the big dog who was not so fast".split()
def text(most):
    return " ".join(r.choice(words) for _ in range(r.randint(3, most)))
def write(name, rows, open=open):
    with open(sys.argv[1] + "/" + name, "wt") as f:
        f.writelines(json.dumps(row) + "\n" for row in rows)
write("text.jsonl", [{"text": text(60)} for _ in range(60)])
write("few.jsonl", [{"text": text(60)} for _ in range(15)])
write("held.jsonl", [{"text": text(60)} for _ in range(10)])
chat = [{"messages": [{"role": "system", "content": text(3)}] * (i % 2) + [{"role": "user", "content": text(4)},
        {"role": "assistant", "content": text(6)}] * (1 + i % 2)} for i in range(40)]
write("chat.jsonl", chat)
write("chat.jsonl.gz", chat, gzip.open)
write("pairs.jsonl", [{"prompt": text(4), "completion": text(4)} for _ in range(40)])
PY

# ---- what a run leaves ----

verdict "help" eval 'h 0 train --help && out_has "hadal train RUN.yaml" && out_has section.key=value && out_has checkpoint.folder'
verdict "keys" eval 'h 0 train --keys && out_has "optimizer" && out_has lr && out_has checkpoint'
verdict "a model" h 0 init debug "$t/model"

base="model.path=$t/model data.train=synthetic data.seq_len=64 training.batch=4 optimizer.lr=3e-3"
verdict "pretraining" eval 'tr_ first training.steps=40 checkpoint.every=16 metrics.tensorboard=true && k 0 falls "$t/first" 0.9'
verdict "what it leaves" eval 'cd "$t/first" && ls -d events.out.tfevents.* metrics.jsonl run.yaml model/config.json model/tokenizer.json \
    step-00000032 step-00000040 hf-00000040/config.json hf-00000040/tokenizer.json >"$t/out" 2>"$t/err" &&
    [ ! -e step-00000016 ] && ! ls -d *.tmp >/dev/null 2>&1; code=$?; cd "$OLDPWD"; [ $code -eq 0 ]'
verdict "a line for every step" py '[x["step"] for x in m] == list(range(40)) and all(x["lr"] == 3e-3 and x["tokens"] == 256 * (x["step"] + 1)
    for x in m)' first
verdict "plot, info and run of it" eval 'h 0 plot "$t/first" && [ -s "$t/first/metrics.svg" ] && h 0 info "$t/first/hf-00000040" --json &&
    h 0 run "$t/first/hf-00000040" -p x -n 3 --raw'
verdict "run.yaml describes the same run" eval 'h 0 train "$t/first/run.yaml" "checkpoint.folder=$t/second" && same first second'
verdict "over, once more" eval 'cp -r "$t/first" "$t/copy" && h 0 train "$t/first/run.yaml" && out_has "done after 40 steps" &&
    err_has "40 steps done" && diff -r "$t/copy" "$t/first" >>"$t/err"'
verdict "and some steps more" eval 'h 0 train "$t/first/run.yaml" training.steps=44 && [ -d "$t/first/hf-00000044" ] &&
    py "len(m) == 44" first'
verdict "a model folder left unfinished is finished" eval 'rm -rf "$t/first/hf-00000044"; mkdir "$t/copy2" && cp -r "$t/first/." "$t/copy2" &&
    (ulimit -f 400; h 1 train "$t/copy2/run.yaml" "checkpoint.folder=$t/copy2") && [ -f "$t/copy2/hf-00000044/convert.json" ] &&
    h 0 train "$t/copy2/run.yaml" "checkpoint.folder=$t/copy2" && [ ! -e "$t/copy2/hf-00000044/convert.json" ] &&
    h 0 info "$t/copy2/hf-00000044"'
verdict "a preset by name, its checkpoint in bf16" eval 'h 0 train model.path=debug model.init=true data.train="$t/text.jsonl" data.seq_len=32 \
    training.steps=2 checkpoint.folder="$t/preset" && h 0 run "$t/preset/hf-00000002" -p x -n 2 --raw &&
    grep -q bfloat16 "$t/preset/hf-00000002/config.json"'
verdict "--quiet" eval 'tr_ quiet training.steps=3 -q && [ "$(wc -l <"$t/out")" -eq 1 ] && [ ! -s "$t/err" ]'
verdict "--json" eval 'tr_ json training.steps=5 --json && [ "$(wc -l <"$t/out")" -eq 6 ] && [ ! -s "$t/err" ] &&
    python3 -c "import json, sys
d = [json.loads(l) for l in open(sys.argv[1])]
m = [json.loads(l) for l in open(sys.argv[2])]
assert [x[\"step\"] for x in d[:5]] == [1, 2, 3, 4, 5] and d[5][\"stopped\"] is False and d[5][\"exported\"].endswith(\"hf-00000005\")
assert all(abs(x[\"loss\"] - y[\"loss\"]) < 1e-6 and set(y) <= set(x) | {\"layers\"} for x, y in zip(d, m))" \
    "$t/out" "$t/json/metrics.jsonl" 2>>"$t/err"'

# ---- exactly the same run, whatever stops it ----

resume="model.path=$t/model data.train=$t/few.jsonl data.validation=$t/held.jsonl data.seq_len=48 training.batch=8 training.micro_batch=2
    training.steps=24 training.validate_every=4 checkpoint.every=1 checkpoint.keep_best=true optimizer.lr=1e-3 schedule.kind=cosine
    schedule.warmup_steps=5 training.batch_ramp_from=2 training.batch_ramp_tokens=2000"
base=$resume
verdict "unbroken" eval 'tr_ whole && py "len(m) == 24 and m[0][\"tokens\"] < m[23][\"tokens\"] - m[22][\"tokens\"]" whole &&
    py "[x[\"step\"] for x in m if \"validation_loss\" in x] == [3, 7, 11, 15, 19, 23]" whole'
verdict "which passes over its data more than once" eval 'n=$("$hadal" tokenize "$t/model" --count --no-special "$(cat "$t/few.jsonl")") &&
    py "m[23][\"tokens\"] > 1.2 * $n" whole'
verdict "Ctrl-C ends with a checkpoint" eval 'k 130 stop 2 7 "$hadal" train $base "checkpoint.folder=$t/int" && err_has "Ctrl-C twice more" &&
    [ "$(grep -c . "$t/int/metrics.jsonl")" -lt 24 ] && [ ! -e "$t/int/hf-00000024" ]'
verdict "and the same command goes on" eval 'tr_ int && err_has "going on from" && same whole int'
verdict "kill -9, again and again" eval 'k 0 storm 1 6 "$hadal" train $base "checkpoint.folder=$t/kill" && same whole kill'
base="$resume training.ranks=2 training.zero=true training.expert_parallel=2"
verdict "the same with two ranks" eval 'tr_ whole2 && k 0 storm 2 4 "$hadal" train $base "checkpoint.folder=$t/kill2" && same whole2 kill2'
base="model.path=$t/model data.train=$t/text.jsonl data.seq_len=48 training.batch=8 optimizer.lr=1e-3 checkpoint.export=false
    training.steps=9 checkpoint.every=1"
for x in optimizer.bf16_moments=true optimizer.kind=muon training.precision=fp8 objective.capacity_factor=1 \
    'lora.rank=2 lora.target_modules=[q_a_proj,o_proj] training.ranks=2'; do
    verdict "killed with $x" eval 'rm -rf "$t/x" "$t/y"; tr_ x $x && k 0 storm 3 2 "$hadal" train $base $x "checkpoint.folder=$t/y" && same x y'
done

# ---- ranks, accumulation, recompute ----

base="model.path=$t/model data.train=$t/text.jsonl data.seq_len=48 training.batch=8 optimizer.lr=1e-3 training.precision=f32
    checkpoint.export=false training.steps=9"
verdict "a rank" tr_ one
verdict "resharding from 1 to 2 to 4 ranks" eval 'tr_ shard training.steps=3 && tr_ shard training.steps=6 training.ranks=2 training.zero=true &&
    tr_ shard training.ranks=4 training.zero=true training.expert_parallel=4 && ls "$t/shard/step-00000009/shard-0003.safetensors" >/dev/null &&
    same one shard 1e-6'
verdict "accumulation" eval 'tr_ accumulated training.micro_batch=1 && same one accumulated 1e-6'
verdict "recompute of parts" eval 'tr_ parts training.recompute=[norm,mla_up,swiglu] && same one parts'
verdict "recompute of blocks" eval 'tr_ blocks training.recompute=[block] && same one blocks'
verdict "capacity" eval 'tr_ tight objective.capacity_factor=1 && py "all(x[\"dropped\"] > 0 for x in m)" tight'

# ---- fine-tuning of what has a chat template; the folder it makes ----

v3=$models/v3_mtp/checkpoint
v32=$models/v32/checkpoint
base="data.seq_len=48 training.batch=4 training.steps=6 training.precision=f32 optimizer.lr=1e-3"
if [ -f "$v3/config.json" ]; then
    base="$base model.path=$v3"
    verdict "conversations" eval 'tr_ sft data.train=$t/chat.jsonl data.loss=assistant data.packing=best_fit && k 0 falls "$t/sft" 1'
    verdict "of .gz the same" eval 'tr_ gz data.train=$t/chat.jsonl.gz data.loss=assistant data.packing=best_fit && same sft gz'
    verdict "all tokens count otherwise" eval 'tr_ all data.train=$t/chat.jsonl data.loss=all data.packing=best_fit && ! same sft all 1e-3'
    verdict "the last turn otherwise" eval 'tr_ last data.train=$t/chat.jsonl data.loss=last data.packing=best_fit && ! same sft last 1e-3'
    verdict "prompts and completions" tr_ pairs data.train="$t/pairs.jsonl" data.loss=assistant
    verdict "the model in the source's layout and types" k 0 layout "$v3" "$t/sft/hf-00000006"
    verdict "it drafts" eval 'h 0 run "$t/sft/hf-00000006" -p x -n 4 --drafts 1 --json && out_has draft_proposed'
    verdict "an FP8 folder, in BF16 afterwards" eval '[ ! -f $models/v31_fp8_ue8m0/checkpoint/config.json ] ||
        tr_ fp8 model.path=$models/v31_fp8_ue8m0/checkpoint data.train=synthetic && h 0 info "$t/fp8/hf-00000006" && ! out_has FP8'
    verdict "nothing learned, nothing changed" eval 'tr_ still data.train=synthetic training.steps=1 optimizer.lr=0 \
        objective.bias_update_speed=0 && for f in "$v3"/*; do case $f in *.json) ;; *) cmp "$f" "$t/still/hf-00000001/${f##*/}" || exit 1;; esac; done'
    verdict "LoRA" eval 'tr_ lora data.train=synthetic lora.rank=4 "lora.target_modules=[q_a_proj,gate_proj]" && err_has "LoRA: " &&
        [ -s "$t/lora/adapter/adapter_model.safetensors" ] && [ -s "$t/lora/adapter/adapter_config.json" ] && h 0 info "$t/lora/hf-00000006"'
else
    echo "SKIP no model at $v3"
fi
base="model.path=$v32 data.train=synthetic data.seq_len=32 training.batch=2 training.steps=4 training.precision=f32
    optimizer.lr=1e-2 objective.indexer_loss_scaling_factor=1"
if [ -f "$v32/config.json" ]; then
    verdict "DSA: warm-up moves the indexer only" eval 'tr_ warm && py "all(x[\"loss\"] == x[\"indexer_loss\"] for x in m)" warm &&
        k 0 moved "$v32" "$t/warm/hf-00000004" "\.indexer\."'
    verdict "DSA: sparse" eval 'tr_ sparse objective.indexer_sparse_training=true && py "all(x[\"loss\"] > x[\"lm_loss\"] for x in m)" sparse &&
        ! err_has index_topk'
    verdict "DSA: short rows are reported" eval 'tr_ short objective.indexer_sparse_training=true data.seq_len=8 && err_has "index_topk"'
    verdict "trainable_parameters_mask" eval 'tr_ mask objective.indexer_sparse_training=true "objective.trainable_parameters_mask=[.*indexer.*]" \
        objective.bias_update_speed=0 && k 0 moved "$v32" "$t/mask/hf-00000004" "\.indexer\."'
else
    echo "SKIP no model at $v32"
fi

# ---- on a terminal ----

if python3 -c 'import pty; pty.openpty()' 2>/dev/null; then
    verdict "one line on a terminal, Ctrl-C" eval 'k 130 terminal "$hadal" train model.path="$t/model" data.train=synthetic data.seq_len=64 \
        training.batch=2 training.steps=1000000 checkpoint.folder="$t/tty" && out_has "ETA" && out_has "Ctrl-C twice more" &&
        out_has "the same command goes on" && grep -q "$(printf "\r\033\\[K")step" "$t/out"'
else
    echo "SKIP a terminal: no pseudo-terminal here"
fi
[ $failed -eq 0 ]
