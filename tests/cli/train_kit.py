"""What tests/cli/train.sh asks of runs.
   train_kit.py stop SIGNAL STEPS HADAL ...: `hadal ... --json` gets the signal after so many steps; its exit code is this one's
   train_kit.py storm SEED KILLS HADAL ...: kill -9 a few steps and a moment after the start, so many times; then to the end
   train_kit.py same RUN RUN [TOLERANCE]: the last checkpoints byte by byte and all metrics; with a tolerance only the losses
   train_kit.py falls RUN SHARE: the last loss is less than that share of the first
   train_kit.py layout FOLDER FOLDER: Hugging Face folders with the same files, tensors, types and shapes
   train_kit.py moved FOLDER FOLDER REGEX: exactly the tensors whose names have the expression are different, all of them
   train_kit.py terminal HADAL ...: on a terminal, Ctrl-C after the first steps; what it shows, and its exit code"""
import json, os, random, re, select, signal, struct, subprocess, sys, time

SPEED = ("seconds", "tokens_per_second", "mfu", "memory")


def metrics(run):
    with open(run + "/metrics.jsonl") as f:
        return [{k: v for k, v in json.loads(line).items() if k not in SPEED} for line in f]


def start(command, steps):
    """The program after its first `steps` steps; false when it ended before."""
    p = subprocess.Popen(command + ["--json"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    return p, all([b'"step"' in p.stdout.readline() for _ in range(steps)])


def stop(number, steps, *command):
    p, running = start(list(command), int(steps))
    if not running:
        return "it ended before the signal"
    p.send_signal(int(number))
    p.communicate()
    return p.returncode


def storm(seed, kills, *command):
    r = random.Random(int(seed))
    for i in range(int(kills)):
        p, running = start(list(command), r.randint(2, 4))
        time.sleep(r.random() * r.choice((0, 0.001, 0.01)))
        p.kill()
        p.communicate()
        if not running or p.returncode != -signal.SIGKILL:
            return "ended before kill %d" % i
    return subprocess.call(list(command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def last(run):
    return run + "/" + max(n for n in os.listdir(run) if n.startswith("step-"))


def read(path):
    with open(path, "rb") as f:
        return f.read()


def same(a, b, tolerance=None):
    m, n = metrics(a), metrics(b)
    if len(m) != len(n):
        return "%d steps and %d" % (len(m), len(n))
    for x, y in zip(m, n):
        if tolerance and abs(x["loss"] - y["loss"]) > float(tolerance) * abs(x["loss"]):
            return "step %d: loss %.17g and %.17g" % (x["step"], x["loss"], y["loss"])
        if not tolerance and x != y:
            return "step %d: %s" % (x["step"], [(k, x.get(k), y.get(k)) for k in x if x.get(k) != y.get(k)])
    if tolerance:
        return 0
    if sorted(os.listdir(last(a))) != sorted(os.listdir(last(b))):
        return "other files"
    for f in os.listdir(last(a)):
        if read(last(a) + "/" + f) != read(last(b) + "/" + f):
            return "%s/%s is different" % (last(b), f)
    return 0


def falls(run, share):
    m = metrics(run)
    return 0 if m[-1]["loss"] < float(share) * m[0]["loss"] else "loss %g to %g" % (m[0]["loss"], m[-1]["loss"])


def tensors(folder):
    """{name: (type, shape, bytes)}"""
    out = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            b = read(folder + "/" + name)
            n = struct.unpack("<Q", b[:8])[0]
            for k, v in json.loads(b[8 : 8 + n]).items():
                if k != "__metadata__":
                    out[k] = (v["dtype"], v["shape"], b[8 + n + v["data_offsets"][0] : 8 + n + v["data_offsets"][1]])
    return out


def layout(a, b):
    x, y = tensors(a), tensors(b)
    if sorted(os.listdir(a)) != sorted(os.listdir(b)):
        return "files: %s" % os.listdir(b)
    bad = [k for k in x.keys() | y.keys() if k not in x or k not in y or x[k][:2] != y[k][:2]]
    return "tensors: %s" % bad[:4] if bad else 0


def moved(a, b, expression):
    x, y = tensors(a), tensors(b)
    bad = [k for k in x if (x[k] != y[k]) != bool(re.search(expression, k))]
    return "tensors: %s" % bad[:4] if bad else 0


def terminal(*command):
    import pty

    pid, fd = pty.fork()
    if pid == 0:
        os.execv(command[0], command)
    seen, pressed = b"", False
    while select.select([fd], [], [], 60)[0]:
        try:
            b = os.read(fd, 65536)
        except OSError:
            break
        if not b:
            break
        seen += b
        if not pressed and seen.count(b"ETA") > 3:
            pressed = True
            os.write(fd, b"\x03")
    os.write(1, seen)
    if not seen.endswith(b"\n"):
        os.kill(pid, 9)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 255


sys.exit(globals()[sys.argv[1]](*sys.argv[2:]))
