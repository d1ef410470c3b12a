#!/bin/sh
# What hadal train says to bad input: sh tests/cli/train_bad.sh HADAL
# One line on the error stream (notes may go before it) that names what is wrong, exit code 2, or 1 where the system
# refused, and nothing left behind. Prints "ok NAME" or "FAIL NAME".
hadal=$(realpath "$1")
models=${MODELS:-tests/data/models}
t=$(mktemp -d) || exit 2
full=
trap '[ -z "$full" ] || umount "$t/full" 2>/dev/null; rm -rf "$t"' EXIT
export TERM=xterm LC_ALL=C.UTF-8 ASAN_OPTIONS="allocator_may_return_null=1:$ASAN_OPTIONS"
always=train
. "$(dirname "$0")/kit"

# complains CODE WORDS KEYS...: as a run of the small model into a folder that must not be there afterwards
complains() {
    want=$1 words=$2
    shift 2
    rm -rf "$t/none"
    h "$want" model.path="$t/model" data.train=synthetic $base checkpoint.folder="$t/none" "$@" && says "$words" && [ ! -e "$t/none" ]
}
# says WORDS: the last line on the error stream has them, and nothing stands on the other
says() { [ ! -s "$t/out" ] && tail -n 1 "$t/err" | grep -q '^hadal: ' && tail -n 1 "$t/err" | grep -qF -- "$1"; }
one_line() { [ "$(wc -l <"$t/err")" -eq 1 ]; }

base="data.seq_len=32 training.batch=4 training.steps=3"
verdict "a model" eval '"$hadal" init debug "$t/model" >"$t/out" 2>"$t/err"'
cd_model="model.path=$t/model"

# ---- run files ----

yaml() { printf '%b' "$1" >"$t/run.yaml"; }
run() { h "$1" "$t/run.yaml" && says "$2" && one_line; }
verdict "no run file" eval 'h 2 && says "RUN.yaml or section.key=value is missing" && one_line'
verdict "run file missing" eval 'h 2 "$t/nothere.yaml" && says "nothere.yaml: No such file" && one_line'
verdict "an empty run file" eval 'yaml "" && run 2 "model.path is missing"'
verdict "an unknown key" eval 'yaml "model:\n  path: x\ndata:\n  seqlen: 3\n" && run 2 "run.yaml:4: data.seqlen is not a key: did you mean data.seq_len?"'
verdict "an unknown section" eval 'yaml "optimiser:\n  lr: 1\n" && run 2 "did you mean optimizer?"'
verdict "a wrong type" eval 'yaml "training:\n  steps: ten\n" && run 2 "run.yaml:2: training.steps should be an integer"'
verdict "a section that is none" eval 'yaml "model: 3\n" && run 2 "run.yaml:1: model should be a section"'
verdict "a key twice" eval 'yaml "training:\n  steps: 1\n  steps: 2\n" && run 2 "run.yaml:3"'
verdict "no YAML" eval 'yaml "model:\n  path: [x\n" && run 2 "not valid YAML"'
verdict "an unknown override" complains 2 "optimizer.lrr is not a key: did you mean optimizer.lr?" optimizer.lrr=1
verdict "no number" complains 2 "optimizer.lr should be a number" optimizer.lr=abc
verdict "no choice" complains 2 "f32|bf16|fp8" training.precision=int8
verdict "out of range" complains 2 "training.steps is -1" training.steps=-1
verdict "no override" complains 2 "should be section.key=value" steps
verdict "no value" complains 2 "training.steps=\" has no value" training.steps=
verdict "the run file behind" complains 2 "a run file stands before" run.yaml
verdict "micro_batch that does not divide" complains 2 "training.batch is 4, not a multiple of 3" training.micro_batch=3
verdict "expert_parallel that does not divide the ranks" complains 2 "should divide training.ranks" training.ranks=2 training.expert_parallel=3
verdict "nor the experts" complains 2 "3 ranks cannot share 8 experts" training.ranks=3 training.expert_parallel=3 training.batch=3
verdict "an indexer that is not there" complains 2 "no indexer" objective.indexer_loss_scaling_factor=1
verdict "adapters without modules" complains 2 "lora.target_modules is missing" lora.rank=2
verdict "adapters for nothing" complains 2 "nosuch" lora.rank=2 "lora.target_modules=[nosuch]"

# ---- models ----

verdict "no model folder" complains 2 "there is no folder $t/gone" model.path="$t/gone"
verdict "a preset without init" eval 'cd "$t" && complains 2 "wants model.init=true" model.path=debug; code=$?; cd "$OLDPWD"; [ $code -eq 0 ]'
verdict "no preset" complains 2 "no preset of that name" model.path=debgu model.init=true
verdict "a folder without a model" eval 'mkdir "$t/empty" && complains 2 "config.json" model.path="$t/empty"'
bad_model() { rm -rf "$t/bad" && cp -r "$t/model" "$t/bad"; }
verdict "other shapes than config.json says" eval 'bad_model && sed -i "s/\"moe_intermediate_size\": *[0-9]*/\"moe_intermediate_size\": 24/" \
    "$t/bad/config.json" && complains 2 "experts.0.gate_proj.weight\" has shape" model.path="$t/bad"'
verdict "a layer missing" eval 'bad_model && sed -i "s/\"num_hidden_layers\": *[0-9]*/\"num_hidden_layers\": 5/" "$t/bad/config.json" &&
    complains 2 "model.layers.4.input_layernorm.weight\" is missing" model.path="$t/bad"'
verdict "NaN in the weights" eval 'bad_model && python3 -c "import json, struct, sys
b = bytearray(open(sys.argv[1], \"rb\").read())
n = struct.unpack(\"<Q\", b[:8])[0]
at = 8 + n + json.loads(b[8:8 + n])[\"model.layers.1.self_attn.o_proj.weight\"][\"data_offsets\"][0] + 40
b[at:at + 4] = struct.pack(\"<f\", float(\"nan\"))
open(sys.argv[1], \"wb\").write(b)" "$t/bad/model.safetensors" &&
    complains 2 "$t/bad: model.safetensors: tensor \"model.layers.1.self_attn.o_proj.weight\" holds NaN at element 10" model.path="$t/bad"'
verdict "more than memory holds" complains 1 "memory is out: weights and gradients take 5" model.path=671b model.init=true
if (ulimit -v 3000000 && "$hadal" version) >/dev/null 2>&1; then
    verdict "more than a step has memory for" eval '(ulimit -v 3000000 && h 1 $cd_model data.train=synthetic data.seq_len=1024 \
        training.batch=20000 training.steps=1 training.threads=1 checkpoint.folder="$t/big") && says "20000 rows of 1024 tokens at once are too many"'
else
    echo "SKIP memory out in a step: this program does not start in 3 GB of addresses"
fi

# ---- data ----

data() { printf '%b' "$1" >"$t/$2"; }
verdict "no data file" complains 2 "nofile.jsonl" data.train="$t/nofile.jsonl"
verdict "empty JSONL" eval 'data "" empty.jsonl && complains 2 "empty.jsonl: no tokens" data.train="$t/empty.jsonl"'
verdict "empty .bin" eval 'data "" empty.bin && complains 2 "empty.bin: no tokens" data.train="$t/empty.bin"'
verdict "less than a row" eval 'data "{\"text\": \"a\"}\n" short.jsonl && complains 2 "fewer than" data.train="$t/short.jsonl"'
verdict "a damaged line" eval 'data "{\"text\": \"one two three four five six seven eight\"}\n{\"text\": \"torn\n{\"text\": \"more\"}\n" torn.jsonl &&
    complains 2 "torn.jsonl, line 2" data.train="$t/torn.jsonl"'
verdict "skipped when asked" eval 'h 0 $cd_model data.train="$t/torn.jsonl" data.skip_damaged=true $base checkpoint.folder="$t/skip" &&
    grep -q "torn.jsonl, line 2" "$t/err"; code=$?; rm -rf "$t/skip"; [ $code -eq 0 ]'
verdict "no known layout" eval 'data "{\"txt\": \"x\"}\n" other.jsonl && complains 2 "other.jsonl, line 1" data.train="$t/other.jsonl"'
verdict "token beyond the vocabulary" eval 'python3 -c "import struct, sys
open(sys.argv[1], \"wb\").write(struct.pack(\"<500I\", *[5] * 499, 263))" "$t/big.bin" && complains 2 "token 263 at byte 1996" data.train="$t/big.bin"'
verdict "half a token" eval 'data "abcde" odd.bin && complains 2 "no whole number of 4-byte tokens" data.train="$t/odd.bin"'
if [ -f "$models/v3_mtp/checkpoint/tokenizer.json" ]; then
    verdict "a tokenizer with more tokens" complains 2 "the tokenizer has 443 tokens, but the model's vocab_size is 263" \
        data.tokenizer="$models/v3_mtp/checkpoint"
    verdict "text without a tokenizer" eval 'data "{\"text\": \"x\"}\n" text.jsonl && mkdir "$t/bare" && cp "$t/model/config.json" "$t/model/model.safetensors" "$t/bare" &&
        complains 2 "set data.tokenizer" model.path="$t/bare" data.train="$t/text.jsonl"'
fi

# ---- checkpoints ----

again() { # CODE WORDS KEYS...: the run of $t/run once more
    want=$1 words=$2
    shift 2
    h "$want" $cd_model data.train=synthetic $base checkpoint.folder="$t/run" checkpoint.every=1 "$@" && says "$words"
}
verdict "a run" h 0 $cd_model data.train=synthetic $base checkpoint.folder="$t/run" checkpoint.every=1
cp -r "$t/run" "$t/kept"
verdict "a run is no model" complains 2 "hadal convert $t/run OUT" model.path="$t/run"
verdict "nor is a checkpoint" complains 2 "hadal convert $t/run/step-00000003 OUT" model.path="$t/run/step-00000003"
verdict "another optimizer" again 2 "another optimizer" training.steps=5 optimizer.kind=muon
verdict "moments of another type" again 2 "optimizer.bf16_moments" training.steps=5 optimizer.bf16_moments=true
verdict "other trained weights" again 2 "other trained weights" training.steps=5 "objective.trainable_parameters_mask=[norm]"
verdict "adapters over a full checkpoint" again 2 "is missing" training.steps=5 lora.rank=2 "lora.target_modules=[q_a_proj]"
verdict "another model's checkpoint" again 2 "another shape" training.steps=5 model.path=tiny model.init=true
verdict "no resume in a folder with checkpoints" again 2 "take another checkpoint.folder" checkpoint.resume=false
verdict "nothing was changed by that" eval 'diff -r "$t/run" "$t/kept" >>"$t/err"'
printf X | dd of="$t/run/step-00000003/shard-0000.safetensors" bs=1 seek=20000 conv=notrunc 2>/dev/null
verdict "a flipped byte names the file and the way out" eval 'again 2 "step-00000003/shard-0000.safetensors: checksum" training.steps=5 &&
    says "without the folder $t/run/step-00000003"'
verdict "which helps" eval 'rm -r "$t/run/step-00000003" && h 0 $cd_model data.train=synthetic $base checkpoint.folder="$t/run" \
    checkpoint.every=1 && grep -q "2 steps done" "$t/err" && cmp "$t/run/step-00000003/shard-0000.safetensors" "$t/kept/step-00000003/shard-0000.safetensors"'
verdict "a file where the folder should be" eval 'h 1 $cd_model data.train=synthetic $base checkpoint.folder="$t/model/config.json" && says "cannot make folder"'
verdict "a folder that cannot be written" eval 'h 1 $cd_model data.train=synthetic $base checkpoint.folder=/proc/nowhere && says "/proc/nowhere"'

# Weights and moments are 2.6 MB: the first checkpoint fits into 6 MB, the second not.
if [ "$(id -u)" -eq 0 ] && mkdir "$t/full" && mount -t tmpfs -o size=6m none "$t/full" 2>/dev/null; then
    full=1
    disk() { "$hadal" train $cd_model data.train=synthetic $base training.steps=6 checkpoint.folder="$t/full/run" checkpoint.every=2 \
        checkpoint.export=false "$@" >"$t/out" 2>"$t/err" </dev/null; }
    "$hadal" train $cd_model data.train=synthetic $base training.steps=6 checkpoint.folder="$t/free" checkpoint.every=2 >/dev/null 2>&1
    verdict "the disk is full" eval 'disk; [ $? -eq 1 ] && tail -n 1 "$t/err" | grep -q "^hadal: .*No space left on device" &&
        [ "$(ls -d "$t"/full/run/step-* | wc -l)" -eq 1 ]'
    verdict "what is there loads" eval 'disk training.steps=2 && grep -q "2 steps done" "$t/err"'
    verdict "and goes on when there is room" eval 'mount -o remount,size=30m "$t/full" && disk && grep -q "2 steps done" "$t/err" &&
        cmp "$t/full/run/step-00000006/shard-0000.safetensors" "$t/free/step-00000006/shard-0000.safetensors" &&
        [ "$(wc -l <"$t/full/run/metrics.jsonl")" -eq 6 ]'
else
    echo "SKIP a full disk: no tmpfs can be mounted here"
fi
[ $failed -eq 0 ]
