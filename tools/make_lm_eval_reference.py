#!/usr/bin/env python3
"""Writes tests/data/serve/reference.json: what lm-evaluation-harness gives with transformers on the CPU in float32, for
the tasks and models of tests/server/harness.py.

  pip install lm_eval[hf]==0.4.13, then from the repository's root:
  tools/make_lm_eval_reference.py build/hadal

Needs also the reference data in HADAL_SHARED (default ../shared): a tokenizer comes from there.
"""
import json
import os
import sys
from importlib.metadata import version

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tests/server"))
from harness import CONTEXT, REFERENCE, RUNS, evaluate, models, weights
from kit import Folder


def rounded(x):
    """float32 sums need no more digits."""
    if isinstance(x, dict):
        return {k: rounded(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return [rounded(y) for y in x]
    return round(x, 6) if isinstance(x, float) else x


def main(program):
    reference = {"made_with": {p: version(p) for p in ("lm_eval", "transformers", "torch")}, "weights": {}, "runs": {}}
    with Folder() as folder:
        folders = models(program, folder)
        for name, (model, tasks, options, chat) in RUNS.items():
            # the harness asks servers for one token more, and lays its windows one narrower
            options = dict(options, pretrained=folders[model], dtype="float32", max_length=CONTEXT[model] - 2)
            reference["weights"][model] = weights(folders[model])
            reference["runs"][name] = rounded(evaluate("hf", tasks, chat, model_args=options, device="cpu", batch_size=1))
    with open(REFERENCE, "w", encoding="utf-8") as f:
        # a document a line
        f.write(json.dumps(reference, ensure_ascii=False).replace("]], [[", "]],\n[[").replace('"], ["', '"],\n["') + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
