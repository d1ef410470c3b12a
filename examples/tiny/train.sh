#!/bin/sh
# Makes models/tiny-base and models/tiny from nothing, and distils the second into a dense student (docs/tiny-r1.md):
# pretraining in two phases, GRPO, rejection sampling, fine-tuning, evaluations. About five minutes on one processor.
# usage: examples/tiny/train.sh build/hadal FOLDER [SEED]
set -e
hadal=$1
dir=$2
seed=${3:-0}
here=$(dirname "$0")
mkdir -p "$dir"
exported() { ls -d "$dir/$1"/hf-*; }
data() { "$hadal" data tiny-r1 "$dir/$1.jsonl" --task "$2" --phase "$3" --documents "$4" --seed "$seed$5"; }

data calc calc clean 12000 0
data clean all clean 80000 1
data mixed all mixed 20000 2
data prompts all work 4000 3
data questions all work 6000 4
"$hadal" data tiny-r1 "$dir/held.jsonl" --phase work --documents 300 --held-out

base() { # PRESET NAME: random weights, what a text of the world teaches
    "$hadal" init "$1" "$dir/$2-start" --seed "$seed"
    "$hadal" train "$here/pretrain.yaml" model.path="$dir/$2-start" data.train="$dir/calc.jsonl" \
        training.steps=250 schedule.kind=constant schedule.decay_steps=1 checkpoint.folder="$dir/$2-calc"
    "$hadal" train "$here/pretrain.yaml" model.path="$(exported "$2-calc")" data.train="$dir/clean.jsonl" \
        data.validation="$dir/held.jsonl" checkpoint.folder="$dir/$2-clean"
    "$hadal" train "$here/mixed.yaml" model.path="$(exported "$2-clean")" data.train="$dir/mixed.jsonl" \
        data.validation="$dir/held.jsonl" checkpoint.folder="$dir/$2-mixed"
    "$hadal" convert "$(exported "$2-mixed")" "$dir/$2" --to bf16
    "$hadal" eval "$dir/$2" --task tiny-r1 --limit 400 --samples 8 --compute f32
}

base tiny tiny-base
"$hadal" grpo "$here/grpo.yaml" model.path="$dir/tiny-base" data.train="$dir/prompts.jsonl" checkpoint.folder="$dir/grpo"
"$hadal" convert "$(exported grpo)" "$dir/tiny" --to bf16
"$hadal" eval "$dir/tiny" --task tiny-r1 --limit 400 --samples 8 --compute f32

base tiny-dense student-base
"$hadal" sample "$here/sample.yaml" model.path="$dir/tiny" data.train="$dir/questions.jsonl" \
    sample.output="$dir/traces.jsonl"
"$hadal" distill "$here/distill.yaml" model.path="$dir/student-base" data.train="$dir/traces.jsonl" \
    checkpoint.folder="$dir/distill"
"$hadal" convert "$(exported distill)" "$dir/student" --to bf16
"$hadal" eval "$dir/student" --task tiny-r1 --limit 400 --samples 8 --compute f32
