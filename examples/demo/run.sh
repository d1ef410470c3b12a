#!/bin/sh
# What hadal does, on a small model of DeepSeek-V3's shape with random weights: made, looked at, run, converted from FP8
# to BF16, checked, measured. Downloads nothing; everything happens in a temporary folder.
# usage: examples/demo/run.sh build/hadal
set -e
hadal=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
say() { printf '$ %s\n' "$*" | sed "s|$hadal|hadal|g; s|$dir|/tmp/demo|g"; "$@"; }

step 'A random checkpoint: FP8 weights with 128x128 block scales, MTP layer, tokenizer'
say "$hadal" init examples/demo/model "$dir/fp8" --seed 1
say "$hadal" info "$dir/fp8"

step 'An answer (the weights are noise, and so is the text)'
say "$hadal" run "$dir/fp8" -p "The deepest part of the sea" --max-tokens 48 --seed 7 --ignore-eos
step 'The same with drafts of the MTP layer: greedy text, checked token by token'
say "$hadal" run "$dir/fp8" -p "The deepest part of the sea" --max-tokens 48 --temperature 0 --drafts 2 --ignore-eos --stats

step 'FP8 to BF16, as a Hugging Face folder'
say "$hadal" convert "$dir/fp8" "$dir/bf16" --to bf16
step 'Both give the same logits but for the rounding to BF16'
say "$hadal" check "$dir/bf16" --write "$dir/golden.jsonl" -p "The deepest part of the sea is the hadal zone."
say "$hadal" check "$dir/fp8" --golden "$dir/golden.jsonl" --max-kl 0.01

step 'How fast is it here?'
say "$hadal" bench "$dir/bf16" --prompt 256 --generate 32
printf '\nNow a real one: hadal chat FOLDER, with a folder as it comes from the hub.\n'
