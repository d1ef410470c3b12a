#!/bin/sh
# What hadal does: a small model of our own thinks and answers; it is trained further for a moment; a random FP8 checkpoint
# of V3's shape is made, converted, checked, measured. Downloads nothing; everything happens in a temporary folder.
# usage: examples/demo/run.sh build/hadal
set -e
hadal=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
say() { printf '$ %s\n' "$*" | sed "s|$hadal|hadal|g; s|$dir|/tmp/demo|g"; "$@"; }

step 'models/tiny: 757,000 parameters of V3 architecture that add digits modulo 10, thinking first'
say "$hadal" run models/tiny -p "c7+8-3+5-9"
printf '$ hadal chat models/tiny\n'
printf 'c1+2+3+4+5\nc9-8-7-6-5\n' | "$hadal" chat models/tiny
step 'How often is it right, on sums that it never saw?'
say "$hadal" eval models/tiny --task tiny-r1:calc --limit 100 --temperature 0

step 'How such a model begins: data, random weights, 60 steps (the whole recipe: examples/tiny/train.sh)'
say "$hadal" data tiny-r1 "$dir/clean.jsonl" --task calc --documents 3000
say "$hadal" train examples/tiny/pretrain.yaml model.path=tiny model.init=true data.train="$dir/clean.jsonl" \
    training.steps=60 schedule.decay_steps=20 checkpoint.folder="$dir/run" --quiet
say "$hadal" plot "$dir/run" --output "$dir/curves.svg"
tail -n 1 "$dir/run/metrics.jsonl" | cut -c 1-150

step 'A random checkpoint: FP8 weights with 128x128 block scales, MTP layer, tokenizer'
say "$hadal" init examples/demo/model "$dir/fp8" --seed 1
say "$hadal" info "$dir/fp8"

step 'FP8 to BF16, as a Hugging Face folder'
say "$hadal" convert "$dir/fp8" "$dir/bf16" --to bf16
step 'Both give the same logits but for the rounding to BF16'
say "$hadal" check "$dir/bf16" --write "$dir/golden.jsonl" -p "The deepest part of the sea is the hadal zone."
say "$hadal" check "$dir/fp8" --golden "$dir/golden.jsonl" --max-kl 0.01

step 'How fast is it here?'
say "$hadal" bench "$dir/bf16" --prompt 256 --generate 32
printf '\nNow a real one: hadal chat FOLDER, with a folder as it comes from the hub.\n'
