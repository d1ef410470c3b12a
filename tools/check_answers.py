#!/usr/bin/env python3
"""Compares tests/reward/answers.tsv with the math-verify package (pip install math-verify; compared with 0.9.0):

  check_answers.py [answers.tsv]

Every line has our verdict (the test test_answer keeps the program to it), the right answer, a given one, and where
math-verify decides otherwise, the reason. Prints both lists of disagreements. Exit code 1 when one of them has no
reason in the table: it has to be looked at by a person.
"""
import logging
import os
import re
import sys

from math_verify import parse, verify


def formula(text):
    """Texts without delimiters of a formula get them, as math-verify looks for formulas."""
    dollars = len(re.findall(r"(?<!\\)\$", text))
    return text if dollars or re.search(r"\\boxed|\\fbox|\\\(|\\\[", text) else f"${text}$"


def main():
    logging.disable(logging.WARNING)
    here = os.path.dirname(os.path.abspath(__file__))
    path = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "../tests/reward/answers.tsv")
    rows = [line.rstrip("\n").split("\t") for line in open(path, encoding="utf-8")]
    rows = [r + [""] * (4 - len(r)) for r in rows if len(r) > 2]
    we_accept, they_accept, same, unreasoned = [], [], 0, 0
    for verdict, gold, given, reason in rows:
        theirs = verify(parse(formula(gold), parsing_timeout=3), parse(formula(given), parsing_timeout=3), timeout_seconds=3)
        if (verdict == "right") == theirs:
            same += 1
            if reason.startswith("math-verify"):
                print(f"stale reason: {gold}  |  {given}  |  {reason}")
            continue
        (they_accept if theirs else we_accept).append((verdict, gold, given, reason))
        unreasoned += not reason
    for title, found in (("accepted by us, refused by math-verify", we_accept), ("refused by us", they_accept)):
        print(f"{title}: {len(found)}")
        for verdict, gold, given, reason in found:
            print(f"  {verdict:6}  {gold}  |  {given}  |  {reason or 'NO REASON GIVEN'}")
    print(f"{len(rows)} pairs, {same} agree, {len(we_accept)} + {len(they_accept)} disagree, {unreasoned} without a reason")
    return unreasoned > 0


if __name__ == "__main__":
    sys.exit(main())
