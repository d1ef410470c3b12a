#!/bin/sh
# Makes models/tiny: a model of V3's architecture that adds digits modulo 10 by writing its working down
# (docs/tiny_r1.md). Data, pretraining, supervised fine-tuning, evaluation; a few minutes on one processor.
# usage: examples/tiny/train.sh build/hadal FOLDER
set -e
hadal=$1
dir=$2
here=$(dirname "$0")
mkdir -p "$dir"
"$hadal" init tiny "$dir/start" --seed 0
"$hadal" data tiny-r1 "$dir/clean.jsonl" --task calc --phase clean --documents 60000 --seed 1
"$hadal" data tiny-r1 "$dir/work.jsonl" --task calc --phase work --documents 20000 --seed 2
"$hadal" data tiny-r1 "$dir/held.jsonl" --task calc --phase work --documents 500 --held-out
"$hadal" train "$here/pretrain.yaml" model.path="$dir/start" data.train="$dir/clean.jsonl" \
    data.validation="$dir/held.jsonl" checkpoint.folder="$dir/pretrain"
"$hadal" train "$here/sft.yaml" model.path="$(ls -d "$dir"/pretrain/hf-*)" data.train="$dir/work.jsonl" \
    data.validation="$dir/held.jsonl" checkpoint.folder="$dir/sft"
"$hadal" convert "$(ls -d "$dir"/sft/hf-*)" "$dir/tiny" --to bf16
"$hadal" eval "$dir/tiny" --task tiny-r1:calc
