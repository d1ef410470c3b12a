#!/bin/sh
# Everything from nothing: data, random weights, pre-training, cold start, GRPO, rejection sampling, fine-tuning, GRPO
# again, distillation into a dense student, evaluations and a report page (examples/tiny/r1.yaml). Some minutes on two
# processors. Stopped, the same command goes on where it was.
# usage: examples/demo/full.sh build/hadal [FOLDER] [SEED]
set -e
hadal=$(realpath "$1")
recipe=$(realpath "$(dirname "$0")/../tiny/r1.yaml")
dir=${2:-build/demo-full}
seed=${3:-0}
mkdir -p "$dir"
cd "$dir"
say() { printf '$ %s\n' "$*" | sed "s|$hadal|hadal|g"; "$@"; }
data() { # NAME TASKS PHASE DOCUMENTS SEED [--held-out]
    [ -e "$1.jsonl" ] ||
        say "$hadal" data tiny-r1 "$1.jsonl" --task "$2" --phase "$3" --documents "$4" --seed "$seed$5" $6 > "$1.log"
}

data calc calc clean 12000 0
data clean all clean 80000 1
data mixed all mixed 20000 2
data cold all work 400 3
data problems all work 8000 4
data questions all work 6000 5
data held all work 300 6 --held-out
data held-problems all work 200 7 --held-out
cat ./*.log | grep '^\$'
say "$hadal" r1 "$recipe" training.threads=0 model.seed="$seed" rollout.seed="$seed"
printf '\nThe report:  %s/r1/report.html\nThe reasoner:  hadal chat %s\nThe student:  hadal chat %s\n' "$PWD" \
    "$(ls -d "$PWD"/r1/*-all-scenarios/hf)" "$(ls -d "$PWD"/r1/*-student/hf)"
