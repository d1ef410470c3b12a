#!/usr/bin/env python3
"""Makes a small byte-level BPE tokenizer.json: 256 byte tokens, merges learned from a text, a few special tokens.

    tools/make_tokenizer.py TEXT_FILE VOCAB_SIZE OUT_FOLDER

For the demonstration model and tests; not needed to build or run hadal."""
import collections
import json
import re
import sys

SPECIAL = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"]


def byte_alphabet():  # GPT-2's printable stand-ins for the 256 bytes
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, extra = {}, 0
    for b in range(256):
        if b in keep:
            table[b] = chr(b)
        else:
            table[b] = chr(256 + extra)
            extra += 1
    return table


def main():
    text, size, out = open(sys.argv[1], encoding="utf-8").read(), int(sys.argv[2]), sys.argv[3]
    alphabet = byte_alphabet()
    words = collections.Counter(
        tuple(alphabet[b] for b in w.encode()) for w in re.findall(r" ?[A-Za-z]+| ?[0-9]| ?[^\sA-Za-z0-9]+|\s+", text))
    vocab = SPECIAL[:2] + [alphabet[b] for b in range(256)]
    merges = []
    while len(vocab) < size - len(SPECIAL) + 2:
        pairs = collections.Counter()
        for w, n in words.items():
            for p in zip(w, w[1:]):
                pairs[p] += n
        if not pairs:
            break
        best = max(pairs.items(), key=lambda kv: (kv[1], kv[0]))[0]
        merges.append(list(best))
        vocab.append("".join(best))
        merged = collections.Counter()
        for w, n in words.items():
            new, i = [], 0
            while i < len(w):
                if w[i:i + 2] == best:
                    new.append(w[i] + w[i + 1])
                    i += 2
                else:
                    new.append(w[i])
                    i += 1
            merged[tuple(new)] += n
        words = merged
    vocab += SPECIAL[2:]
    ids = {t: i for i, t in enumerate(vocab)}
    added = [dict(id=ids[t], content=t, single_word=False, lstrip=False, rstrip=False, normalized=False,
                  special=t not in ("<think>", "</think>")) for t in SPECIAL]
    json.dump({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": " ?[A-Za-z]+| ?[0-9]| ?[^\\sA-Za-z0-9]+|\\s+"},
             "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                  "vocab": {t: ids[t] for t in vocab if t not in SPECIAL or t in SPECIAL[:2]}, "merges": merges},
    }, open(f"{out}/tokenizer.json", "w", encoding="utf-8"), ensure_ascii=False, indent=1)
    print(len(vocab), "tokens")


main()
