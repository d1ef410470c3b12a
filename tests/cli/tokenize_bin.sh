#!/bin/sh
# Token files as their users make them: sh tests/cli/tokenize_bin.sh HADAL [MODEL]
# MODEL is a small folder with a tokenizer. Prints "ok NAME" or "FAIL NAME", as tests/cli/run.sh does.
hadal=$1
model=${2:-${MODEL:-tests/data/models/v3_mtp/checkpoint}}
t=$(mktemp -d) || exit 2
trap 'rm -rf "$t"' EXIT
export LC_ALL=C.UTF-8
always="tokenize $model"
. "$(dirname "$0")/kit"

nothing_left() { [ ! -e "$t/x.bin" ] && [ ! -e "$t/x.bin.tmp" ]; }
py() { # EXPRESSION about d, the summary
    python3 -c 'import json,sys
d = json.load(open(sys.argv[1]))
sys.exit(0 if eval(sys.argv[2]) else "not so: " + sys.argv[2])' "$t/out" "$1" 2>>"$t/err"
}

python3 - "$t" <<'PY'
import json, sys
t = sys.argv[1]
with open(t + "/a.jsonl", "w") as f:
    for i in range(6000):
        f.write(json.dumps({"text": f"document {i} of the deep sea\n" + "fish " * (i % 50), "id": i}) + "\n")
open(t + "/one.txt", "w").write("The deep sea\nis dark.\n")
lines = open(t + "/a.jsonl").read().split("\n")
open(t + "/bad.jsonl", "w").write("\n".join(lines[:3] + ["{broken", json.dumps({"text": 5})] + lines[3:6]) + "\n")
open(t + "/chat.jsonl", "w").write('{"messages": [{"role": "user", "content": "hi"}]}\n')
open(t + "/empty.jsonl", "w").write("\n\n")
open(t + "/special.txt", "w").write("a<｜end▁of▁sentence｜>b")
PY
gzip -k "$t/a.jsonl"
zstd -q -k "$t/a.jsonl"

# the rule in another language: ids of each text as the program itself gives them, eos behind
expected_one() {
    h 0 --no-special --json -f "$t/one.txt" && cp "$t/out" "$t/ids.json" && h 0 --to-bin "$t/one.bin" "$t/one.txt" &&
        python3 - "$t" 2>>"$t/err" <<'PY'
import json, struct, sys
t = sys.argv[1]
b = open(t + "/one.bin", "rb").read()
got = list(struct.unpack(f"<{len(b) // 4}I", b))
want = [x["id"] for x in json.load(open(t + "/ids.json"))["tokens"]]
# -f leaves out the last newline, which a document keeps
sys.exit(0 if got[:len(want)] == want and got[-1] == 1 and len(want) < len(got) <= len(want) + 2 else f"{got} for {want}")
PY
}
verdict "a text is its tokens and eos" expected_one
verdict "summary" eval 'h 0 --to-bin "$t/a.bin" --json "$t/a.jsonl" && py "d[\"documents\"] == 6000 and d[\"damaged\"] == 0" &&
    py "d[\"tokens\"] * 4 == $(stat -c %s "$t/a.bin") and d[\"bytes\"] == $(stat -c %s "$t/a.jsonl")"'
verdict "summary as a table" eval 'h 0 --to-bin "$t/a1.bin" "$t/one.txt" && grep -q documents "$t/out"'
verdict "threads do not matter" eval 'h 0 --to-bin "$t/b.bin" -t 1 "$t/a.jsonl" && cmp "$t/a.bin" "$t/b.bin" &&
    h 0 --to-bin "$t/b.bin" -t 3 "$t/a.jsonl" && cmp "$t/a.bin" "$t/b.bin"'
verdict "gzip" eval 'h 0 --to-bin "$t/b.bin" "$t/a.jsonl.gz" && cmp "$t/a.bin" "$t/b.bin"'
verdict "zstd" eval 'h 0 --to-bin "$t/b.bin" "$t/a.jsonl.zst" && cmp "$t/a.bin" "$t/b.bin"'
verdict "files one behind the other" eval 'h 0 --to-bin "$t/b.bin" "$t/a.jsonl" "$t/one.txt" &&
    cat "$t/a.bin" "$t/one.bin" | cmp - "$t/b.bin"'
verdict "every document ends" eval 'python3 -c "
import struct, sys
b = open(sys.argv[1], \"rb\").read()
ids = struct.unpack(f\"<{len(b) // 4}I\", b)
sys.exit(ids[-1] != 1 or ids.count(1) != 6000)" "$t/a.bin"'
verdict "special tokens are text" eval 'h 0 --to-bin "$t/b.bin" --json "$t/special.txt" && py "d[\"tokens\"] > 6" &&
    h 0 --to-bin "$t/b.bin" --json --parse-special "$t/special.txt" && py "d[\"tokens\"] == 4"'
verdict "another member" eval 'echo "{\"story\": \"x\"}" >"$t/s.jsonl" && h 0 --to-bin "$t/b.bin" --text-field story "$t/s.jsonl"'
verdict "damaged line" eval 'h 2 --to-bin "$t/x.bin" "$t/bad.jsonl" && one_line && err_has "bad.jsonl, line 4" && nothing_left'
verdict "damaged lines left out" eval 'h 0 --to-bin "$t/b.bin" --skip-damaged --json "$t/bad.jsonl" && err_has "line 4" &&
    err_has "line 5" && err_has "2 damaged lines" && py "d[\"documents\"] == 6 and d[\"damaged\"] == 2"'
verdict "conversations" eval 'h 2 --to-bin "$t/x.bin" "$t/chat.jsonl" && one_line && err_has "no \"text\"" && nothing_left'
verdict "no documents" eval 'h 2 --to-bin "$t/x.bin" "$t/empty.jsonl" && one_line && err_has "no documents" && nothing_left'
verdict "torn file" eval 'head -c 5000 "$t/a.jsonl.gz" >"$t/torn.jsonl.gz" && h 2 --to-bin "$t/x.bin" "$t/torn.jsonl.gz" && one_line &&
    err_has truncated && nothing_left'
verdict "missing file" eval 'h 2 --to-bin "$t/x.bin" "$t/a.jsonl" "$t/none.jsonl" && one_line && err_has none.jsonl && nothing_left'
verdict "unknown kind of file" eval 'cp "$t/one.txt" "$t/one.doc" && h 2 --to-bin "$t/x.bin" "$t/one.doc" && one_line && err_has one.doc'
verdict "no file" eval 'h 2 --to-bin "$t/x.bin" && one_line'
verdict "exclusive options" eval 'h 2 --to-bin "$t/x.bin" --count --decode 1 "$t/one.txt" && one_line'
verdict "argument too many without it" eval 'h 2 a b && one_line && err_has "unexpected"'
verdict "no place to write" eval 'h 1 --to-bin "$t/none/x.bin" "$t/one.txt" && one_line'
verdict "a file that is there stays until the new one is whole" eval 'cp "$t/a.bin" "$t/x.bin" && h 2 --to-bin "$t/x.bin" "$t/bad.jsonl" &&
    cmp "$t/a.bin" "$t/x.bin" && [ ! -e "$t/x.bin.tmp" ] && rm "$t/x.bin"'
interrupted() { # enough work for seconds; the interrupt comes when the file has begun
    for i in 1 2 3 4 5 6 7 8 9 10; do cat "$t/a.jsonl"; done >"$t/m.jsonl"
    for i in 1 2 3; do cat "$t/m.jsonl"; done >"$t/l.jsonl"
    python3 - "$hadal" "$model" "$t" 2>"$t/err" <<'PY'
import os, signal, subprocess, sys, time
hadal, model, t = sys.argv[1:]
p = subprocess.Popen([hadal, "tokenize", model, "--to-bin", t + "/x.bin", t + "/l.jsonl"], stderr=subprocess.PIPE,
                     preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
while p.poll() is None and not os.path.exists(t + "/x.bin.tmp"):
    time.sleep(0.01)
p.send_signal(signal.SIGINT)
err = p.communicate()[1]
sys.exit(0 if p.returncode == 130 and err == b"hadal: interrupted\n" else f"{p.returncode} {err}")
PY
}
verdict "interrupt" eval 'interrupted && nothing_left'

[ "$failed" -eq 0 ]
