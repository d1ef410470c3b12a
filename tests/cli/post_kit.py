"""What tests/cli/post.sh asks of runs.
   post_kit.py storm SEED KILLS HADAL ...: kill -9 at random moments after the start (opening, rollouts, updates, saves), so
       many times; then to the end
   post_kit.py same RUN RUN: the last checkpoints, sample traces and metrics (but for times) byte by byte
   post_kit.py press SIGNAL LINES SECONDS HADAL ...: the signal after so many lines and a moment; its exit code is this one's
   post_kit.py lines FILE EXPRESSION: about `m`, the lines of a JSONL file
   post_kit.py partial OUTPUT SEED KILLS HADAL ...: kill -9 again and again while OUTPUT is sampled; then to the end"""
import json, os, random, signal, subprocess, sys, time

TIMES = ("seconds", "tokens_per_second", "mfu", "memory", "rollout_seconds", "rollout_tokens_per_second", "update_seconds")


def unique(pairs):
    names = [k for k, _ in pairs]
    if len(set(names)) < len(names):
        sys.exit("a member twice: %s" % names)
    return dict(pairs)


def read(path):
    with open(path, "rb") as f:
        return f.read()


def rows(path):
    return [json.loads(line, object_pairs_hook=unique) for line in read(path).decode().splitlines()]


def metrics(run):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows(run + "/metrics.jsonl")]


def begin(command):
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)


def storm(seed, kills, *command):
    r, step = random.Random(int(seed)), 0.1
    for i in range(int(kills)):
        p = begin(list(command) + ["--json"])
        for _ in range(r.choice((0, 1, 1, 2))):
            line = p.stdout.readline()
            step = json.loads(line).get("seconds", step) if line else step
        time.sleep(1.5 * step * r.random())
        p.kill()
        p.communicate()
        if p.returncode != -signal.SIGKILL:
            return "ended before kill %d" % i
    return subprocess.call(list(command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def last(run):
    return run + "/" + max(n for n in os.listdir(run) if n.startswith("step-"))


def same(a, b):
    m, n = metrics(a), metrics(b)
    if [x["step"] for x in n] != list(range(len(m))):
        return "steps %s" % [x["step"] for x in n]
    for x, y in zip(m, n):
        if x != y:
            return "step %d: %s" % (x["step"], [(k, x.get(k), y.get(k)) for k in x if x.get(k) != y.get(k)])
    x, y = last(a), last(b)
    if os.path.basename(x) != os.path.basename(y) or sorted(os.listdir(x)) != sorted(os.listdir(y)):
        return "other checkpoints"
    for f in os.listdir(x):
        if read(x + "/" + f) != read(y + "/" + f):
            return "%s/%s is different" % (y, f)
    return 0 if read(a + "/samples.jsonl") == read(b + "/samples.jsonl") else "other samples"


def press(number, n, moment, *command):
    p = begin(list(command))
    for _ in range(int(n)):
        p.stdout.readline()
    time.sleep(float(moment))
    p.send_signal(int(number))
    sys.stdout.write(p.communicate()[0].decode())
    return p.returncode


def lines(path, expression):
    m = rows(path)
    return 0 if eval("(" + expression + ")") else "not so: " + expression


def partial(output, seed, kills, *command):
    r = random.Random(int(seed))
    for i in range(int(kills)):
        before = os.path.exists(output + ".progress") and read(output + ".progress")
        p = begin(list(command))
        while p.poll() is None and (not os.path.exists(output + ".progress") or read(output + ".progress") == before):
            time.sleep(0.002)  # until something is done
        time.sleep(0.05 * r.random())
        p.kill()
        p.communicate()
        if os.path.exists(output):
            return "done before kill %d" % i
    return subprocess.call(list(command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


sys.exit(globals()[sys.argv[1]](*sys.argv[2:]))
