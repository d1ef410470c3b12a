#!/usr/bin/env python3
"""Compares the loss curve of a run (metrics.jsonl) with a reference trainer's (one JSON object a line with step, loss,
grad_norm, and perhaps mtp_loss, seq_aux, max_vio), within the drift of two right implementations:

  compare_curve.py RUN/metrics.jsonl REFERENCE.jsonl

steps 0-7: loss within 2e-6, gradient norm within 5e-6 (relative); 8-12: 5e-4 (a first flipped route); 13-17: 5e-3;
later: means of 10 steps within 0.05. With a learning rate of 2.2e-4 the narrow band holds longer.
"""
import json
import sys


def rows(path):
    out = {}
    for line in open(path, encoding="utf-8"):
        row = json.loads(line)
        if "step" in row:
            out[row["step"]] = row
    return out


def main():
    ours, theirs = rows(sys.argv[1]), rows(sys.argv[2])
    steps = sorted(set(ours) & set(theirs))
    passed = failed = 0
    worst = {}

    def judge(name, gap, limit, step):
        nonlocal passed, failed
        ok = gap <= limit
        passed, failed = passed + ok, failed + (not ok)
        if gap / limit >= worst.get(name, (0,))[0]:
            worst[name] = (gap / limit, gap, limit, step)
        if not ok:
            print(f"FAIL step {step} {name}: {gap:.2e} beyond {limit:.0e}")

    for s in steps:
        a, b = ours[s], theirs[s]
        limit = 2e-6 if s < 8 else 5e-4 if s < 13 else 5e-3 if s < 18 else None
        if limit:
            judge(f"loss, steps below {8 if s < 8 else 13 if s < 13 else 18}", abs(a["lm_loss"] - b["loss"]), limit, s)
        if limit and "mtp_loss" in b:
            judge("mtp_loss", abs(a["mtp_loss"] - b["mtp_loss"]), limit, s)
        if s < 8:
            judge("grad_norm", abs(a["grad_norm"] / b["grad_norm"] - 1), 5e-6, s)
            judge("max_vio", abs(a.get("max_vio", 0) - b.get("max_vio", 0)), 1e-4, s)
        if s < 8 and "seq_aux" in b:
            judge("balance", abs(a["balance_loss"] / b["seq_aux"] - 1), 1e-5, s)
    for first in range(18, len(steps) - 9, 10):
        part = steps[first:first + 10]
        gap = abs(sum(ours[s]["lm_loss"] - theirs[s]["loss"] for s in part)) / len(part)
        judge("mean of 10 steps", gap, 0.05, first)
    for name, (_, gap, limit, step) in sorted(worst.items()):
        print(f"{name}: worst {gap:.2e} of {limit:.0e} at step {step}")
    print(f"{passed} passed, {failed} failed")
    return failed > 0 or not passed


if __name__ == "__main__":
    sys.exit(main())
