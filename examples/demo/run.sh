#!/bin/sh
# What hadal does, in a few minutes: a small model thinks and answers; its predecessor, which is right one time in three,
# finds out by reinforcement learning that thinking pays; a table of both on problems that neither ever saw.
# Downloads nothing. `examples/demo/full.sh` makes everything from nothing.
# usage: examples/demo/run.sh build/hadal [FOLDER]
set -e
hadal=$1
dir=${2:-build/demo}
rm -rf "$dir"
mkdir -p "$dir"
step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
say() { printf '$ %s\n' "$*" | sed "s|$hadal|hadal|g"; "$@"; }

# NAME FOLDER: a row of the table, on 400 held-out problems
row() {
    "$hadal" eval "$2" --task tiny-r1 --limit 400 --samples 1 | awk -v name="$1" '
        $1 == "greedy" || $1 == "sampled" { way = $1 }
        way && !((way, $1) in seen) { seen[way, $1] = $NF }
        END { printf "%-28s %8.1f %% %8.1f %% %8.1f %% %9.1f\n", name, 100 * seen["sampled", "accuracy"],
                     100 * seen["greedy", "accuracy"], 100 * seen["sampled", "format"], seen["sampled", "mean"] }'
}

step 'models/tiny: a model of DeepSeek-V3 architecture with 757,000 parameters. It thinks, then it answers'
for problem in c7+8-3+5-9 nz:zcazaz a487+95 s4:3852; do say "$hadal" run models/tiny -p "$problem"; done
echo '(digits modulo 10; how many z in zcazaz; a sum, column by column; signs that make 3?8?5?2 = 4 modulo 10)'

step 'models/tiny-base: the same before reinforcement learning. It has seen reasoning, but as a minority; it guesses'
for seed in 1 2 3; do say "$hadal" run models/tiny-base -p "c7+8-3+5-9" --temperature 1 --seed $seed; done

step 'GRPO: it answers each problem 8 times; a rule says what was right; it learns from the difference'
"$hadal" data tiny-r1 "$dir/problems.jsonl" --task all --documents 20000 --seed 5 --json > /dev/null
"$hadal" data tiny-r1 "$dir/held-out.jsonl" --task all --documents 200 --seed 6 --held-out --json > /dev/null
say "$hadal" grpo examples/tiny/grpo.yaml model.path=models/tiny-base data.train="$dir/problems.jsonl" \
    data.validation="$dir/held-out.jsonl" training.validate_every=20 training.threads=0 checkpoint.folder="$dir/run"
"$hadal" plot "$dir/run" --output "$dir/curves.svg"
after=$(ls -d "$dir"/run/hf-*)

step 'On 400 problems of another seed, none of which was ever trained on'
printf '%-28s %10s %10s %10s %9s\n' '' 'pass@1' 'greedy' 'form' 'tokens'
row 'before' models/tiny-base
row 'after, a minute ago' "$after"
row 'models/tiny, stored' models/tiny

printf '\nTalk to what you have just trained:  %s chat %s\nIts curves:  %s\n' "$hadal" "$after" "$dir/curves.svg"
printf 'Everything from nothing, distillation into a dense student and a report page:  ./demo full\n'
printf 'A real one:  %s chat FOLDER, with a folder as it comes from the hub.\n' "$hadal"
