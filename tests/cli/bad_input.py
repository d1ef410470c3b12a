"""Broken, hostile and odd model folders: python3 bad_input.py HADAL EMPTY_FOLDER

A bad file must give exactly one line "hadal: ..." on stderr, nothing on stdout, exit code 2, in at most 20 seconds (an
endless loop fails; slowness does not) and 200 MB of memory. Prints "ok NAME" or "FAIL NAME" for every case.
"""
import json, os, resource, shutil, struct, subprocess, sys, time
from multiprocessing import Pipe

hadal, top = os.path.abspath(sys.argv[1]), sys.argv[2]
here = os.path.dirname(os.path.abspath(__file__))
demo = os.path.join(here, "..", "..", "examples", "demo", "model")
sanitized = b"__asan_init" in open(hadal, "rb").read()
MEMORY, SECONDS = 200 << 20, 120 if sanitized else 20
failed = 0


# --- running ----------------------------------------------------------------------------------------------------------

class Result:
    def __init__(self, code, out, err, memory):
        self.code, self.out, self.err, self.memory = code, out, err, memory


def launch(program, args, how):
    """The exit code ("endless" when the time is over) and the peak memory in bytes."""
    files = [open(os.path.join(top, n), m) for n, m in (("in", "rb"), ("out", "wb"), ("err", "wb"))]
    before = {"": None, "nobody": lambda: os.setuid(65534),
              "small files": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))}[how]
    try:
        p = subprocess.Popen([program, *args], stdin=files[0], stdout=files[1], stderr=files[2], preexec_fn=before)
    finally:
        for f in files:
            f.close()
    end = time.time() + SECONDS
    while time.time() < end:
        pid, state, usage = os.wait4(p.pid, os.WNOHANG)
        if pid:
            p.returncode = 0
            return os.waitstatus_to_exitcode(state), usage.ru_maxrss << 10
        time.sleep(0.002)
    p.kill()
    p.wait()
    return "endless", 0


# A process that stays small starts the programs: a new process begins with the memory of the one that made it, and Linux
# keeps counting that as its peak.
here_end, there_end = Pipe()
if os.fork() == 0:
    here_end.close()
    try:
        while True:
            there_end.send(launch(*there_end.recv()))
    except EOFError:
        os._exit(0)
there_end.close()


def hadal_run(*args, stdin=b"", how="", program=hadal):
    put(top, "in", stdin)
    here_end.send((program, args, how))
    code, memory = here_end.recv()
    return Result(code, open(os.path.join(top, "out"), "rb").read(), open(os.path.join(top, "err"), "rb").read(), memory)


def verdict(name, why):
    global failed
    failed += bool(why)
    print(f"FAIL {name}: {why}" if why else f"ok {name}", flush=True)


def complaint(r, codes=(2,), words=()):
    """What is wrong with a result that should be a refusal; None: nothing."""
    lines = r.err.decode("utf-8", "replace").split("\n")
    if r.code not in codes:
        return f"exit code {r.code}, wanted {' or '.join(map(str, codes))}: {lines[0][:200]!r}"
    if r.code == 0:
        return None if not r.err else f"exit code 0, but says {lines[0][:200]!r}"
    if len(lines) != 2 or lines[1] or not lines[0].startswith("hadal: "):
        return f"not one line beginning with 'hadal: ': {r.err[:400]!r}"
    if any(ord(c) < 32 or ord(c) == 127 for c in lines[0]):
        return f"control characters in {lines[0]!r}"
    if r.memory > MEMORY and not sanitized:
        return f"{r.memory >> 20} MB of memory: {lines[0][:200]!r}"
    for w in words:
        if w not in lines[0]:
            return f"{w!r} is not in {lines[0][:300]!r}"
    if r.out:
        return f"there is output: {r.out[:100]!r}"


def refused(name, *args, words=(), codes=(2,), **more):
    r = hadal_run(*args, **more)
    verdict(name, complaint(r, codes, words))


RUN = ["--raw", "-p", "The deep sea", "-n", "3", "--ignore-eos", "--temperature", "0", "--threads", "2"]
CHAT = ["--chat", *RUN[1:]]


def bad_model(name, folder, *words, chat=False):
    refused(name, "run", folder, *(CHAT if chat else RUN), words=words)


# --- folders and files ------------------------------------------------------------------------------------------------

count = 0


def folder(*without, base=None):
    """A copy of the base model whose files are links; files named in `without` are left out."""
    global count
    count += 1
    f = os.path.join(top, f"m{count}")
    os.mkdir(f)
    for x in os.listdir(base or plain):
        if x not in without:
            os.symlink(os.path.join(base or plain, x), os.path.join(f, x))
    return f


def put(f, name, data):
    p = os.path.join(f, name)
    if os.path.lexists(p):
        os.remove(p)
    with open(p, "wb") as o:
        o.write(data.encode() if isinstance(data, str) else data)
    return p


def done(f):
    shutil.rmtree(f, ignore_errors=True)


def read_json(name, base=None):
    return json.load(open(os.path.join(base or plain, name)))


def changed(name, change):
    """A folder whose JSON file `name` went through change(value), which may also return a new value."""
    f, j = folder(), read_json(name)
    j = change(j) or j
    put(f, name, json.dumps(j))
    return f


def read_weights(path):
    b = open(path, "rb").read()
    n, = struct.unpack("<Q", b[:8])
    return json.loads(b[8:8 + n]), b[8 + n:]


def weights(header, data=b"", pad=0, length=None):
    """The bytes of a safetensors file; header: an object, or text."""
    h = header if isinstance(header, bytes) else json.dumps(header).encode()
    h += b" " * pad
    return struct.pack("<Q", len(h) if length is None else length) + h + data


def packed(tensors, pad=0, meta=None):
    """The same from {name: (dtype, shape, bytes)}, in this order."""
    header, data, at = {"__metadata__": meta} if meta else {}, [], 0
    for name, (dtype, shape, b) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(b)]}
        data.append(b)
        at += len(b)
    return weights(header, b"".join(data), pad)


def with_weights(data):
    f = folder("model.safetensors")
    put(f, "model.safetensors", data)
    return f


made = hadal_run("init", demo, os.path.join(top, "plain"), "--seed", "1")
plain = os.path.join(top, "plain")
if made.code != 0:
    sys.exit(f"FAIL init of the demonstration model: {made.err!r}")
header, blob = read_weights(os.path.join(plain, "model.safetensors"))
tensors = {k: (v["dtype"], v["shape"], blob[v["data_offsets"][0]:v["data_offsets"][1]])
           for k, v in header.items() if k != "__metadata__"}
whole = open(os.path.join(plain, "model.safetensors"), "rb").read()
wanted = hadal_run("run", plain, *RUN)
verdict("the plain model runs", complaint(wanted, (0,)))
wanted_chat = hadal_run("run", plain, *CHAT)
Q = "model.layers.0.self_attn.q_a_proj.weight"       # an FP8 matrix
GATE = "model.layers.1.mlp.gate.weight"              # a BF16 matrix
NORM = "model.layers.0.input_layernorm.weight"
EMBED = "model.embed_tokens.weight"


def tensor_case(name, change, *words):
    t = dict(tensors)
    change(t)
    f = with_weights(packed(t))
    bad_model(name, f, *words)
    done(f)


# --- a file is not what it should be ----------------------------------------------------------------------------------

def whole_files():
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        f = folder(name)
        bad_model(f"{name} is missing", f, name)
        done(f)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "model.safetensors"):
        is_json = name.endswith(".json")
        text = open(os.path.join(plain, name), "rb").read()
        for what, data in {
            "empty": b"",
            "cut in half": text[:len(text) // 2],
            "noise": bytes((i * 197 + 31) % 256 for i in range(5000)),
            "zeros": bytes(5000),
        }.items():
            f = folder()
            put(f, name, data)
            bad_model(f"{name}: {what}", f, name)
            done(f)
        f = folder(name)
        os.mkdir(os.path.join(f, name))
        bad_model(f"{name} is a folder", f, name)
        done(f)
        f = folder(name)
        os.mkfifo(os.path.join(f, name))
        bad_model(f"{name} is a FIFO", f, name)
        done(f)
        f = folder(name)
        os.symlink("/dev/zero", os.path.join(f, name))
        bad_model(f"{name} is a device", f, name)
        done(f)
        f = folder(name)
        os.symlink(name, os.path.join(f, name))
        r = hadal_run("run", f, *RUN)
        verdict(f"{name} is a link to itself", complaint(r, (2,) if "_" not in name else (0, 2)))
        done(f)
        f = folder()
        with open(put(f, name, b"{"), "r+b") as o:
            o.truncate(1 << 40)
        bad_model(f"{name}: a terabyte of nothing", f, name)
        done(f)
        if os.getuid() == 0:  # root reads everything: become nobody for this one
            f = folder()
            os.chmod(top, 0o755)
            os.chmod(put(f, name, text), 0)
            free = os.path.join(top, "hadal")
            shutil.copy(hadal, free)
            os.chmod(free, 0o755)
            refused(f"{name} may not be read", "run", f, *RUN, words=(name,), how="nobody", program=free)
            done(f)
        else:
            f = folder()
            os.chmod(put(f, name, text), 0)
            bad_model(f"{name} may not be read", f, name)
            done(f)
        if not is_json:
            continue
        for what, data in {
            "a list": b"[]",
            "a number": b"1",
            "null": b"null",
            "two values": text + b"{}",
            "invalid UTF-8": text.replace(b'{', b'{"a\xff\xfe": 1,', 1),
            "UTF-16": text.decode().encode("utf-16"),
            "half a surrogate": b'{"a": "\\ud800"}',
            "NaN": text.replace(b'{', b'{"temperature": NaN,', 1),
            "Infinity": text.replace(b'{', b'{"temperature": Infinity,', 1),
            "a number of 1e999": text.replace(b'{', b'{"temperature": 1e999,', 1),
            "a key twice": b'{"a": 1, "a": 2}',
            "lists 10^6 deep": b"[" * 10**6,
            "objects 10^6 deep": b'{"a":' * 10**6,
            "closed lists 10^5 deep": b'{"a": ' + b"[" * 10**5 + b"]" * 10**5 + b"}",
            "15 MB of lists": b'{"a": [' + b"[]," * (5 << 20) + b"[]]}",
            "15 MB of objects": b'{"a": [' + b"{}," * (5 << 20) + b"{}]}",
            "15 MB of zeros": b'{"a": [' + b"0," * (15 << 19) + b"0]}",
            "15 MB of spaces": b" " * (15 << 20) + b"x",
            "200 MB of lists": b'{"a": [' + b"[]," * (64 << 20) + b"[]]}",
        }.items():
            f = folder()
            put(f, name, data)
            bad_model(f"{name}: {what}", f, name)
            done(f)
    f = os.path.join(top, "file")
    open(f, "w").close()
    refused("a file as model", "run", f, *RUN)
    refused("a FIFO as info's argument", "info", (os.mkfifo(f + ".fifo"), f + ".fifo")[1])
    refused("a folder that is not there", "run", os.path.join(top, "none"), *RUN, words=("none",))
    refused("a model of 10^5 letters", "run", "x" * 10**5, *RUN)
    refused("an empty name", "run", "", *RUN)


# --- safetensors ------------------------------------------------------------------------------------------------------

def safetensors_files():
    def case(name, data, *words):
        f = with_weights(data)
        bad_model(f"weights: {name}", f, *words)
        for c in ("info", "convert"):
            args = ["info", f] if c == "info" else ["convert", f, os.path.join(top, "converted"), "--to", "f32"]
            r = hadal_run(*args)
            verdict(f"weights: {name} ({c})", complaint(r, (2,)))
            done(os.path.join(top, "converted"))
        done(f)

    for n in (1, 7, 8, 9, 1000, 60000, len(whole) // 2, len(whole) - 1):
        case(f"cut after {n} bytes", whole[:n], "model.safetensors")
    for n in (10**18, 2**63, 2**64 - 1, 2**64 - 8, len(whole), len(whole) - 7, 10**8 + 1, 0, 1):
        case(f"header of {n} bytes", struct.pack("<Q", n) + whole[8:], "model.safetensors")
    case("a byte too many", whole + b"x", "model.safetensors")

    def with_entry(**fields):
        h = json.loads(json.dumps(header))
        h[Q].update(fields)
        return weights({k: v for k, v in h.items() if k != "__metadata__"}, blob)

    a, b = header[Q]["data_offsets"]
    for name, range_ in {
        "negative": [-1, b - a - 1], "negative end": [0, -1], "past the end": [len(blob), len(blob) + b - a],
        "10^18": [10**18, 10**18 + b - a], "2^63-1": [2**63 - 1, 2**63 - 1], "falling": [b, a], "overlapping": [a - 1, b - 1],
        "one": [a], "three": [a, b, b], "none": [], "texts": [str(a), str(b)], "fractions": [a + 0.0, b + 0.5],
        "null": None, "huge integers": [10**30, 10**30 + 1], "too short": [a, b - 1], "lists": [[a], [b]],
    }.items():
        case(f"offsets {name}", with_entry(data_offsets=range_))
    rows, columns = header[Q]["shape"]
    for name, shape in {
        "transposed": [columns, rows], "flat": [rows * columns], "of one dimension more": [1, rows, columns], "empty": [],
        "negative": [-rows, -columns], "of a product that overflows": [2**32, 2**32], "of 2^62": [2**62, 4],
        "of zero times much": [0, 2**62, 2**62], "fractional": [rows + 0.5, columns], "text": "128", "null": None,
        "of texts": [str(rows), str(columns)], "of nine dimensions": [1] * 7 + [rows, columns], "too large": [rows + 1, columns],
    }.items():
        f = with_weights(with_entry(shape=shape))
        bad_model(f"weights: shape {name}", f)
        done(f)
    for name, dtype in {"unknown": "Q4_K_M", "number": 7, "null": None, "empty": "", "wrong case": "bf16",
                        "long": "F" * 100000, "escape": "\x1b[31m"}.items():
        case(f"type {name}", with_entry(dtype=dtype))
    for gone in ("dtype", "shape", "data_offsets"):
        h = json.loads(json.dumps(header))
        del h[Q][gone]
        case(f"no {gone}", weights(h, blob))
    for name, text in {
        "not JSON": b"{not json}", "a list": b"[]", "a text": b'"x"', "cut": json.dumps(header).encode()[:-1],
        "invalid UTF-8": json.dumps(header).encode().replace(b"model.norm", b"model.n\xffrm"),
        "a tensor that is a number": b'{"a": 1}', "a tensor that is null": b'{"a": null}',
        "metadata of numbers": b'{"__metadata__": {"a": 1}}', "metadata of lists": b'{"__metadata__": []}',
        "10^6 lists deep": b'{"a": ' + b"[" * 10**6, "10^6 objects deep": b'{"a": ' * 10**6,
        "90 MB of lists": b'{"a": [' + b"[]," * (30 << 20) + b"[]]}", "90 MB of a name": b'{"' + b"a" * (90 << 20) + b'": {}}',
        "90 MB of metadata": b'{"__metadata__": {"a": "' + b"a" * (90 << 20) + b'"}}',
        "15 MB of metadata entries": b'{"__metadata__": {' + b",".join(b'"%x":""' % i for i in range(1500000)) + b"}}",
        "90 MB of entries": b"{" + b",".join(b'"%x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % i
                                              for i in range(1500000)) + b"}",
        "the same name twice": b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
        "text behind it": b'{}{}', "an escape in a name": b'{"\\u001b[31m\\nx":{}}',
    }.items():
        f = with_weights(weights(text, blob if b"model." in text else b""))
        bad_model(f"weights: header: {name}", f)
        done(f)


def index_files():
    names = list(tensors)
    half = len(names) // 2
    parts = {"a.safetensors": names[:half], "b.safetensors": names[half:]}
    sharded = folder("model.safetensors")
    for file, list_ in parts.items():
        put(sharded, file, packed({n: tensors[n] for n in list_}))
    good = {n: file for file, list_ in parts.items() for n in list_}
    put(sharded, "model.safetensors.index.json", json.dumps({"metadata": {}, "weight_map": good}))
    r = hadal_run("run", sharded, *RUN)
    verdict("index: two shards run", complaint(r, (0,)) or (r.out != wanted.out and f"another text: {r.out!r}"))

    def case(name, index, *words, change=None):
        f = folder(base=sharded)
        put(f, "model.safetensors.index.json", index if isinstance(index, (str, bytes)) else json.dumps(index))
        if change:
            change(f)
        bad_model(f"index: {name}", f, *words)
        r = hadal_run("convert", f, os.path.join(top, "converted"), "--to", "bf16")
        verdict(f"index: {name} (convert)", complaint(r, (2,)))
        done(os.path.join(top, "converted"))
        done(f)

    def named(shard):
        return {"weight_map": {**good, names[0]: shard}}

    put(top, "x.safetensors", packed(tensors))
    for shard in ("../x.safetensors", "../../x", "../../x.safetensors", "a/../../x.safetensors", "/etc/passwd", "..", "", ".",
                  os.path.join(top, "x.safetensors"), "./../x.safetensors", "pytorch_model.bin", "a.safetensors\0.safetensors",
                  "missing.safetensors", "none/a.safetensors", "x" * 5000 + ".safetensors"):
        case(f"names {shard[:60]!r}", named(shard))
    for what, shard in {"a number": 1, "null": None, "a list": ["a.safetensors"], "an object": {}}.items():
        case(f"names {what}", named(shard))
    case("without weight_map", {})
    case("weight_map empty", {"weight_map": {}})
    case("weight_map a list", {"weight_map": []})
    case("a list", [])
    case("a tensor that its shard lacks", named("b.safetensors"))
    case("a tensor of no shard", {"weight_map": {**good, "nowhere.weight": "a.safetensors"}}, "nowhere.weight")
    case("empty file", "")
    case("lists 10^6 deep", "[" * 10**6)
    case("90 MB of lists", '{"weight_map": {"a": [' + "[]," * (30 << 20) + "[]]}}")
    case("90 MB of names", '{"weight_map": {' + ",".join('"%x":"a.safetensors"' % i for i in range(4 * 10**6)) + "}}")

    def replace(by):
        def change(f):
            os.remove(os.path.join(f, "b.safetensors"))
            by(os.path.join(f, "b.safetensors"))
        return change
    whole_index = {"weight_map": good}
    case("a shard is missing", whole_index, "b.safetensors", change=replace(lambda p: None))
    case("a shard is a folder", whole_index, "b.safetensors", change=replace(os.mkdir))
    case("a shard is a FIFO", whole_index, "b.safetensors", change=replace(os.mkfifo))
    case("a shard is a broken link", whole_index, "b.safetensors", change=replace(lambda p: os.symlink("gone", p)))
    case("a shard is empty", whole_index, "b.safetensors", change=replace(lambda p: open(p, "w").close()))
    two = {k: v for k, v in good.items() if k != names[0]}
    case("a tensor in two shards", {"weight_map": two}, names[0],
         change=lambda f: put(f, "b.safetensors", packed({n: tensors[n] for n in parts["b.safetensors"] + names[:1]})))
    done(sharded)


# --- tensors ----------------------------------------------------------------------------------------------------------

def wrong_tensors():
    def set_(name, dtype, shape, size):
        return lambda t: t.__setitem__(name, (dtype, shape, bytes(size)))

    def change(name, f):
        def do(t):
            dtype, shape, b = t[name]
            t[name] = f(dtype, list(shape), bytearray(b))
        return do

    def poke(name, at, value):
        def f(dtype, shape, b):
            b[at:at + len(value)] = value
            return dtype, shape, bytes(b)
        return change(name, f)

    scale = Q + "_scale_inv"
    rows, columns = tensors[Q][1]
    for name in (Q, scale, GATE, NORM, EMBED, "lm_head.weight", "model.norm.weight",
                 "model.layers.2.mlp.experts.7.up_proj.weight", "model.layers.3.mlp.gate.e_score_correction_bias"):
        tensor_case(f"tensor missing: {name}", lambda t: t.pop(name), name)
    for name in (Q, GATE, NORM, EMBED, "model.layers.2.mlp.experts.7.up_proj.weight"):
        tensor_case(f"tensor with a row more: {name}",
                    lambda t: t.__setitem__(name, (t[name][0], [t[name][1][0] + 1, *t[name][1][1:]],
                                                   t[name][2] + bytes(len(t[name][2]) // t[name][1][0]))), name)
        tensor_case(f"tensor empty: {name}", set_(name, "BF16", [0, 256], 0), name)
        for dtype, size in (("I32", 4), ("F64", 8), ("U8", 1), ("BOOL", 1), ("F8_E5M2", 1), ("I64", 8)):
            n = 1
            for d in tensors[name][1]:
                n *= d
            tensor_case(f"tensor of {dtype}: {name}", set_(name, dtype, tensors[name][1], n * size), name)
    tensor_case("FP8 vector", set_(NORM, "F8_E4M3", [256], 256), NORM)
    tensor_case("scales of the transposed shape", change(scale, lambda d, s, b: (d, s + [1], b)), scale)
    tensor_case("scales too many", set_(scale, "F32", [rows, columns], 4 * rows * columns), scale)
    tensor_case("scales flat", change(scale, lambda d, s, b: (d, [s[0] * s[1]], b)), scale)
    tensor_case("scales empty", set_(scale, "F32", [0, 0], 0), scale)
    tensor_case("scales of BF16", set_(scale, "BF16", tensors[scale][1], 2 * tensors[scale][1][0] * tensors[scale][1][1]), scale)
    nan, infinity = b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f"
    tensor_case("NaN in a norm", poke(NORM, 2, nan[2:]), NORM, "NaN")
    tensor_case("infinity in a norm", poke(NORM, 2, infinity[2:]), NORM, "infinity")
    tensor_case("NaN in a correction bias", poke("model.layers.1.mlp.gate.e_score_correction_bias", 4, nan), "NaN")
    tensor_case("NaN in the head", poke("lm_head.weight", 0, nan[2:]), "lm_head.weight", "NaN")
    tensor_case("NaN in a gate", poke(GATE, 0, nan[2:]), "NaN")
    tensor_case("NaN in an FP8 matrix", poke(Q, 5, b"\x7f"), Q, "NaN")
    tensor_case("NaN in a scale", poke(scale, 0, nan), scale, "NaN")
    tensor_case("infinity in a scale", poke(scale, 0, infinity))
    tensor_case("NaN everywhere", lambda t: t.update({k: (d, s, b"\xff" * len(b)) for k, (d, s, b) in t.items()}))
    tensor_case("infinity in the head", poke("lm_head.weight", 0, infinity[2:]))
    tensor_case("infinity in an output projection", poke("model.layers.0.mlp.down_proj.weight_scale_inv", 0, infinity))


# --- config.json ------------------------------------------------------------------------------------------------------

UNREAD = {"architectures", "torch_dtype", "num_key_value_heads"}  # by deepseek_v3


def configurations():
    good = read_json("config.json")
    types = {"a text": "x", "a list": [], "an object": {}, "true": True}
    numbers = {"-1": -1, "0": 0, "1.5": 1.5, "1e300": 1e300, "10^9": 10**9, "2^62": 2**62}
    for key, was in good.items():
        for what, value in {**types, **numbers, "null": None}.items():
            if type(value) is type(was) and not isinstance(value, (int, float)):
                continue
            if isinstance(was, bool) and value is True:
                continue
            f = changed("config.json", lambda j: j.__setitem__(key, value))
            must = key not in UNREAD and what in types and not (key == "quantization_config" and what == "an object")
            if key in ("bos_token_id", "eos_token_id") and what == "a list":
                must = key == "bos_token_id"
            r = hadal_run("run", f, *RUN)
            verdict(f"config.json: {key} is {what}", complaint(r, (2,) if must else (0, 2)))
            r = hadal_run("info", os.path.join(f, "config.json"))
            verdict(f"config.json: {key} is {what} (info)", complaint(r, (2,) if must else (0, 2)))
            done(f)
    for key in ("hidden_size", "num_hidden_layers", "vocab_size", "intermediate_size", "num_attention_heads", "kv_lora_rank",
                "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "moe_intermediate_size", "model_type"):
        f = changed("config.json", lambda j: j.pop(key) and None)
        bad_model(f"config.json without {key}", f, key)
        done(f)
    for key, value, word in (
            ("model_type", "gpt2", "gpt2"), ("model_type", "\x1b[31m", "model_type"), ("model_type", "x" * 10**6, "model_type"),
            ("hidden_act", "gelu", "gelu"), ("scoring_func", "tanh", "tanh"), ("topk_method", "random", "random"),
            ("n_group", 5, "groups"), ("topk_group", 9, "groups"), ("num_experts_per_tok", 17, "experts"),
            ("qk_rope_head_dim", 15, "odd"), ("num_nextn_predict_layers", 17, "MTP"), ("num_hidden_layers", 4000, "num_hidden_layers"),
            ("n_routed_experts", 10**6, ""), ("vocab_size", 10**6, "shape"), ("hidden_size", 512, "shape"),
            ("num_hidden_layers", 9, "missing"), ("num_hidden_layers", 3, ""), ("tie_word_embeddings", "false", "tie_word"),
            ("rope_scaling", {"type": "dynamic", "factor": 2}, "dynamic"), ("rope_scaling", {"type": "yarn"}, "factor"),
            ("rope_scaling", {"type": "yarn", "factor": "4"}, "factor"), ("rope_scaling", {"type": "yarn", "factor": -4}, "factor"),
            ("rope_scaling", {"type": "yarn", "factor": 4, "beta_fast": -1}, "beta"), ("rope_scaling", {"type": 4}, "type"),
            ("quantization_config", {"quant_method": "awq", "bits": 4}, "awq"),
            ("quantization_config", {"quant_method": "fp8", "fmt": "e5m2"}, "e5m2"),
            ("quantization_config", {"quant_method": "fp8", "weight_block_size": [64, 64]}, "weight_block_size"),
            ("eos_token_id", [1, "2"], "eos_token_id"), ("eos_token_id", -5, "eos_token_id"), ("eos_token_id", 2**40, "eos_token_id")):
        f = changed("config.json", lambda j: j.__setitem__(key, value))
        if key == "num_hidden_layers" and value == 3:  # layers that the configuration does not name are no fault
            verdict("config.json: fewer layers than the files have", complaint(hadal_run("run", f, *RUN), (0, 2)))
        else:
            bad_model(f"config.json: {key} is {str(value)[:60]!r}", f, word)
        done(f)
    for key in ("num_hidden_layers", "n_routed_experts", "hidden_size", "vocab_size", "num_attention_heads", "index_n_heads",
                "max_position_embeddings", "n_shared_experts"):
        j = {**good, key: 2**20 if key != "num_hidden_layers" else 1000, "model_type": "deepseek_v32", "index_n_heads": 4,
             "index_head_dim": 32, "index_topk": 8}
        p = put(top, "large.json", json.dumps(j))
        verdict(f"config.json: large {key} (info)", complaint(hadal_run("info", p), (0, 2)))
    everything = {k: (2**20 if isinstance(v, int) and not isinstance(v, bool) else v) for k, v in good.items()}
    p = put(top, "large.json", json.dumps({**everything, "n_group": 1, "topk_group": 1, "num_nextn_predict_layers": 1}))
    verdict("config.json: everything large (info)", complaint(hadal_run("info", p), (0, 2)))
    refused("config.json: everything large (init)", "init", p, os.path.join(top, "large"))
    done(os.path.join(top, "large"))
    for key, value in (("temperature", "0.6"), ("temperature", -1), ("temperature", 1e300), ("top_p", -0.5), ("top_p", 7),
                       ("top_p", []), ("top_k", -3), ("top_k", 1.5), ("top_k", 2**40), ("min_p", 2), ("do_sample", "yes"),
                       ("do_sample", 1), ("repetition_penalty", -1), ("eos_token_id", "1"),
                       ("eos_token_id", {}), ("eos_token_id", [1.5]), ("eos_token_id", 2**40), ("eos_token_id", -7)):
        f = changed("generation_config.json", lambda j: j.__setitem__(key, value))
        refused(f"generation_config.json: {key} is {value!r}", "run", f, "--raw", "-p", "x", "-n", "2",
                words=("generation_config.json", key.split("_")[0]))
        done(f)


# --- tokenizers and templates -----------------------------------------------------------------------------------------

def tokenizers():
    def case(name, change, *words, code=(2,), run=RUN):
        f = changed("tokenizer.json", change)
        verdict(f"tokenizer: {name}", complaint(hadal_run("run", f, *run), code, words))
        r = hadal_run("tokenize", f, "The deep sea", "--ids")
        verdict(f"tokenizer: {name} (tokenize)", complaint(r, (*code, 0)))
        done(f)

    good = read_json("tokenizer.json")
    first = next(iter(good["model"]["vocab"]))
    for what, id_ in {"10^18": 10**18, "2^31": 2**31, "2^31-1": 2**31 - 1, "-1": -1, "a text": "7", "a fraction": 1.5,
                      "null": None, "a list": []}.items():
        case(f"a token's id is {what}", lambda j: j["model"]["vocab"].__setitem__(first, id_), "id")
        case(f"an added token's id is {what}", lambda j: j["added_tokens"][0].__setitem__("id", id_))
    case("two tokens of one id", lambda j: j["model"]["vocab"].__setitem__("twice", 5), "same id")
    case("an added token at a taken id", lambda j: j["added_tokens"][0].__setitem__("id", 300))
    case("an added token without text", lambda j: j["added_tokens"][0].pop("content") and None)
    case("an added token of 10^6 letters", lambda j: j["added_tokens"][0].__setitem__("content", "x" * 10**6), code=(0, 2))
    case("10^5 added tokens", lambda j: j.__setitem__("added_tokens", j["added_tokens"] + [
        {"id": 1000 + i, "content": "<%d>" % i, "special": True} for i in range(10**5)]), code=(0, 2))
    for key in good:
        for what, value in {"a text": "x", "a number": 1, "a list": [1], "an object": {"type": 1}, "null": None}.items():
            if type(value) is type(good[key]) and not isinstance(value, (list, dict)):
                continue
            case(f"{key} is {what}", lambda j: j.__setitem__(key, value), code=(0, 2))
    for key in good["model"]:
        for what, value in {"a text": "x", "a number": 1, "a list": [1], "an object": {"a": "b"}, "null": None}.items():
            case(f"model.{key} is {what}", lambda j: j["model"].__setitem__(key, value), code=(0, 2))
    for t in ("vocab", "merges"):
        case(f"without {t}", lambda j: j["model"].pop(t) and None)
    case("of another kind", lambda j: j["model"].__setitem__("type", "Unigram"), "Unigram")
    for what, m in {"of unknown tokens": "zzz yyy", "without a space": "zzz", "of three": "a b c", "a number": 7,
                    "a pair of numbers": [1, 2], "empty": ""}.items():
        case(f"a merge {what}", lambda j: j["model"]["merges"].insert(0, m))

    def split(regex, behavior="Isolated"):
        return lambda j: j.__setitem__("pre_tokenizer", {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]})
    for regex in ("(", "[", "a{2", "*", "\\", "(?P<x>", "[z-a]", "\\p{Nonsense}", "(?C1)a", "(*UTF)", "a" * 10**6, "\\1",
                  "(" * 5000 + ")" * 5000, "(?:" * 5000 + "a" + ")" * 5000, "a{65536}", "(?R)", "[[:alpha:]]", "\ud800"):
        case(f"regular expression {regex[:20]!r}", split(regex), code=(0, 2))
    long = ["--raw", "-p", "a" * 3000 + "!", "-n", "2", "--temperature", "0", "--threads", "2"]
    for regex in ("(a+)+$", "(a|a)*$", "(a*)*b", "(?:a?){40}a{40}", "(.*)(.*)(.*)(.*)[^!]$", "((a{1,99}){1,99}){1,99}z", "(?=(a+))a*b"):
        case(f"costly expression {regex!r}", split(regex), code=(0, 2), run=long)
    for what in ("x", 7, [], {"Regex": 7}, {"String": []}, {}):
        case(f"pattern {what!r}", lambda j: j.__setitem__("pre_tokenizer", {
            "type": "Split", "pattern": what, "behavior": "Isolated", "invert": False}))
    case("an unknown pre-tokenizer", lambda j: j.__setitem__("pre_tokenizer", {"type": "Nonsense"}), "Nonsense")
    case("an unknown behaviour", split("a", "Nonsense"), "Nonsense")
    deep = {"type": "ByteLevel"}
    for _ in range(400):
        deep = {"type": "Sequence", "pretokenizers": [deep]}
    case("pre-tokenizers 400 deep", lambda j: j.__setitem__("pre_tokenizer", deep))
    deep = {"type": "NFC"}
    for _ in range(400):
        deep = {"type": "Sequence", "normalizers": [deep]}
    case("normalizers 400 deep", lambda j: j.__setitem__("normalizer", deep))
    case("a larger vocabulary than the embedding", lambda j: j["added_tokens"].append(
        {"id": 900, "content": "The", "special": False}), "900", "768")
    for key in ("bos_token", "eos_token", "chat_template", "add_bos_token"):
        for what, value in {"a number": 7, "a list": [7], "an object": {"content": 7}}.items():
            f = changed("tokenizer_config.json", lambda j: j.__setitem__(key, value))
            allowed = (0, 2) if (key, what) == ("chat_template", "a list") else (2,)
            refused(f"tokenizer_config.json: {key} is {what}", "run", f, *RUN, codes=allowed)
            done(f)


def templates():
    two = "{% set s = 'x' * 1000 %}"
    for name, template in {
        "not closed": "{% if true %}", "not opened": "{% endif %}", "nonsense": "{{ ) }}", "an open brace": "{{", "an open text": "{{ 'x }}",
        "an unknown tag": "{% nonsense %}", "an unknown filter": "{{ 1 | nonsense }}", "an unknown function": "{{ nonsense() }}",
        "an exception": "{{ raise_exception('no such role') }}", "a division by zero": "{{ 1 // 0 }}", "modulo zero": "{{ 1 % 0 }}",
        "loops in loops": "{% for a in range(100000) %}{% for b in range(100000) %}{% for c in range(100000) %}{% endfor %}{% endfor %}{% endfor %}",
        "a range of 10^18": "{% for a in range(1000000000000000000) %}{% endfor %}",
        "a list of 10^18": "{{ range(1000000000000000000) | list }}",
        "a text of 10^12": "{{ 'x' * 1000000000000 }}", "a text of 2^62": "{{ 'xxxx' * 4611686018427387904 }}",
        "a text that doubles": two + "{% set ns = namespace(s=s) %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
        "a list that doubles": "{% set ns = namespace(s=[1, 2]) %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
        "a replace that grows": "{% set ns = namespace(s='xx') %}{% for i in range(60) %}{% set ns.s = ns.s | replace('x', 'xxx') %}{% endfor %}{{ ns.s }}",
        "endless output": "{% for a in range(100000) %}{% for b in range(100000) %}text{% endfor %}{% endfor %}",
        "a macro that calls itself": "{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}",
        "macros that call each other": "{% macro a(x) %}{{ b(x) }}{% endmacro %}{% macro b(x) %}{{ a(x) }}{% endmacro %}{{ a(1) }}",
        "a macro that branches": "{% macro m(x) %}{% if x %}{{ m(x - 1) }}{{ m(x - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
        "10^5 parentheses": "{{ " + "(" * 10**5 + "1" + ")" * 10**5 + " }}", "10^5 lists": "{{ " + "[" * 10**5 + " }}",
        "10^5 minus signs": "{{ " + "-" * 10**5 + "1 }}", "10^5 times not": "{{ " + "not " * 10**5 + "1 }}",
        "10^4 ifs": "{% if 1 %}" * 10**4 + "{% endif %}" * 10**4, "10^5 filters": "{{ 'x'" + " | trim" * 10**5 + " + 1 }}",
        "10^5 attributes": "{{ messages" + ".x" * 10**5 + " }}", "10^5 additions of text": "{{ 1" + " + 1" * 10**5 + " + 'x' }}",
        "a large power": "{{ 10 ** 10 ** 10 }}", "a list that holds itself": "{% set ns = namespace() %}{% set ns.a = [ns] %}{{ ns.a | tojson }}",
        "a namespace that holds itself": "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns.a }}{{ ns == ns.a }}{{ ns | tojson }}",
        "a centered text": "{{ 'x' | center(1000000000000) }}", "an indented text": "{{ 'x\n' * 1000 | indent(100000000) }}",
        "a format": "{{ '%1000000000000d' | format(1) }}", "a huge integer": "{{ 99999999999999999999999999999999 + 1 }}",
        "integers that overflow": "{{ 9223372036854775807 + 1 }}{{ 9223372036854775807 * 3 }}{{ -9223372036854775807 - 9 }}{{ nonsense() }}",
        "an include": "{% include '/etc/passwd' %}", "attributes of Python": "{{ ''.__class__.__mro__ }}{{ nonsense() }}",
        "15 MB of text that ends in nonsense": "x" * (15 << 20) + "{{", "15 MB of tags": "{{1}}" * (3 << 20) + "{{",
    }.items():
        if sanitized and name == "a replace that grows":
            continue  # the sanitizer's memmem looks at all that is left of the text for every hit
        f = changed("tokenizer_config.json", lambda j: j.__setitem__("chat_template", template))
        allowed = (0, 2) if name.startswith(("a namespace that", "10^4 ifs", "10^5 minus", "10^5 times", "a centered", "a format",
                                             "a large power", "a huge integer", "a list that holds")) else (2,)
        verdict(f"template: {name}", complaint(hadal_run("run", f, *CHAT), allowed))
        done(f)
    f = folder()
    put(f, "chat_template.jinja", b"\xff\xfe")
    bad_model("template: invalid UTF-8", f, chat=True)
    done(f)


# --- what the user gives ----------------------------------------------------------------------------------------------

def prompts():
    long = os.path.join(top, "long.txt")
    with open(long, "w") as o:
        o.write("The deep sea. " * 10000)
    refused("a prompt longer than the context", "run", plain, "--raw", "-f", long, words=("4096",))
    refused("a prompt longer than -c", "run", plain, "--raw", "-p", "The deep sea is deep", "-c", "3", words=("3",))
    refused("a prompt of invalid UTF-8", "run", plain, "--raw", "-p", b"\xff\xfe", words=("UTF-8",))
    refused("a message of invalid UTF-8", "run", plain, "--chat", "-p", b"ab\xc0\xaf")
    refused("a prompt of invalid UTF-8 through a pipe", "run", plain, "--raw", stdin=b"\xed\xa0\x80", words=("UTF-8",))
    refused("an empty prompt", "run", plain, "-p", "", "--raw", codes=(0, 2))
    refused("a prompt file that is a folder", "run", plain, "-f", top)
    refused("a prompt file that is not there", "run", plain, "-f", os.path.join(top, "none"))
    refused("a prompt of 100 MB", "run", plain, "--raw", stdin=b"x" * (100 << 20))
    refused("a prompt of 10 MB without a space", "run", plain, "--raw", stdin=b"x" * (10 << 20))
    refused("a context of 2^30", "run", plain, "-c", str(1 << 30), *RUN, codes=(0, 1, 2))
    refused("a token id of no token", "tokenize", plain, "--decode", "1,99999999")
    refused("a negative token id", "tokenize", plain, "--decode", "-5", codes=(2,))
    refused("token ids that are no numbers", "tokenize", plain, "--decode", "1,x")
    refused("a token id of 30 digits", "tokenize", plain, "--decode", "9" * 30)
    for name, text in {"not JSON": "{", "a number": "7", "an empty list": "[]", "a list of numbers": "[7]", "no role": '[{"content": "x"}]',
                       "a role that is a number": '[{"role": 7, "content": "x"}]', "content that is a number": '[{"role": "user", "content": 7}]',
                       "messages null": '{"messages": null}', "10^6 lists deep": "[" * 10**6, "15 MB of lists": "[" + "[]," * (5 << 20) + "[]]",
                       "half a surrogate": '[{"role": "user", "content": "\\ud800"}]'}.items():
        p = put(top, "chat.json", text)
        refused(f"conversation: {name}", "tokenize", plain, "--chat", p)
        refused(f"conversation: {name} (chat)", "chat", plain, "--load", p, codes=(2,) if "content" not in name and "empty" not in name else (0, 2))
        r = hadal_run("run", plain, *CHAT, "--tools", p)
        verdict(f"tools: {name}", complaint(r, (0, 2)))
    golden = {"prompt": "x", "tokens": [0, 5], "logits": [[0.0] * 768] * 2}
    for name, text in {
        "not JSON": "{", "empty": "", "a list": "[]", "no logits": '{"tokens": [1]}', "logits of texts": json.dumps({**golden, "logits": [["x"] * 768] * 2}),
        "too few rows": json.dumps({**golden, "logits": [[0.0] * 768]}), "rows too short": json.dumps({**golden, "logits": [[0.0] * 7] * 2}),
        "tokens beyond the vocabulary": json.dumps({**golden, "tokens": [0, 768]}), "negative tokens": json.dumps({**golden, "tokens": [0, -1]}),
        "huge tokens": json.dumps({**golden, "tokens": [0, 2**40]}), "tokens of texts": json.dumps({**golden, "tokens": ["0", "5"]}),
        "no tokens": json.dumps({**golden, "tokens": [], "logits": []}), "NaN": json.dumps(golden).replace("0.0", "NaN", 1),
        "1e999": json.dumps(golden).replace("0.0", "1e999", 1), "1e300": json.dumps(golden).replace("0.0", "1e300", 1),
    }.items():
        p = put(top, "golden.jsonl", text)
        refused(f"golden logits: {name}", "check", plain, "--golden", p)
    for name, data in {
        "empty": b"", "no prompts": packed({"logits_fp8weights_fp32.p1": ("F32", [1, 768], bytes(3072))}), "ids of F32": packed({"ids.p1": ("F32", [1], bytes(4))}),
        "ids beyond the vocabulary": packed({"ids.p1": ("I32", [1], struct.pack("<i", 768)), "logits_fp8weights_fp32.p1": ("F32", [1, 768], bytes(3072))}),
        "negative ids": packed({"ids.p1": ("I32", [1], struct.pack("<i", -1)), "logits_fp8weights_fp32.p1": ("F32", [1, 768], bytes(3072))}),
        "no ids": packed({"ids.p1": ("I32", [0], b""), "logits_fp8weights_fp32.p1": ("F32", [0, 768], b"")}), "noise": bytes(range(256)) * 20,
        "cut": whole[:70000],
    }.items():
        p = put(top, "golden.safetensors", data)
        refused(f"golden tensors: {name}", "trace", plain, "--golden", p, "-o", os.path.join(top, "traced"))
    if os.path.exists(os.path.join(top, "traced")):
        verdict("golden tensors: nothing is left behind", "the output file is there")


def output():
    """What the system refuses while writing is no fault of the input: exit code 1, and no half file under the name."""
    for name, args in {"convert": ["convert", plain, "OUT", "--to", "f32"], "init": ["init", demo, "OUT"],
                       "trace": None, "check --write": None}.items():
        out = os.path.join(top, "full")
        if name == "check --write":
            args = ["check", plain, "--write", "OUT", "-p", "The deep sea " * 100]
        if name == "trace":
            ids = packed({"ids.p1": ("I32", [900], bytes(3600)), "logits_fp8weights_fp32.p1": ("F32", [900, 768], bytes(900 * 768 * 4))})
            args = ["trace", plain, "--golden", put(top, "golden.safetensors", ids), "-o", "OUT"]
        r = hadal_run(*[out if a == "OUT" else a for a in args], how="small files")
        why = complaint(r, (1,))
        left = [p for p in ([out] if os.path.isfile(out) else [os.path.join(out, x) for x in os.listdir(out)] if os.path.isdir(out) else [])
                if p.endswith(".safetensors") or p == out]
        verdict(f"no space left: {name}", why or (left and f"left behind: {left}"))
        if name == "convert" and not why:
            r = hadal_run("convert", plain, out, "--to", "f32")
            verdict("no space left: convert goes on afterwards", complaint(r, (0,)))
        done(out)
        if os.path.isfile(out):
            os.remove(out)
    refused("convert onto a file", "convert", plain, os.path.join(plain, "config.json"), "--to", "f32", codes=(1, 2))
    refused("convert onto itself", "convert", plain, plain, "--to", "f32")
    refused("init onto a file", "init", demo, os.path.join(plain, "config.json"), codes=(1, 2))


# --- what is odd but right --------------------------------------------------------------------------------------------

def accepted():
    def same(name, f):
        r = hadal_run("run", f, *RUN)
        verdict(f"accepted: {name}", complaint(r, (0,)) or (r.out != wanted.out and f"another text: {r.out!r}, not {wanted.out!r}"))

    cache = os.path.join(top, "models--deep--sea")
    blobs, snapshot = os.path.join(cache, "blobs"), os.path.join(cache, "snapshots", "0123abcd")
    os.makedirs(blobs)
    os.makedirs(snapshot)
    for i, x in enumerate(sorted(os.listdir(plain))):
        shutil.copy(os.path.join(plain, x), os.path.join(blobs, f"{i:040x}"))
        os.symlink(f"../../blobs/{i:040x}", os.path.join(snapshot, x))
    same("links as in the hub's cache", snapshot)
    for pad in (1, 3, 8, 4096):
        same(f"a header with {pad} spaces behind it", with_weights(packed(tensors, pad)))
    same("a header with 50 MB of spaces", with_weights(packed(tensors, 50 << 20)))
    same("tensors at odd places", with_weights(packed({"odd": ("U8", [1], b"x"), **tensors})))
    same("empty tensors", with_weights(packed({"empty.first": ("F32", [0, 7], b""), **tensors, "empty.last": ("BF16", [0], b"")})))
    same("a scalar", with_weights(packed({**tensors, "scalar": ("F32", [], bytes(4))})))
    same("tensors in another order", with_weights(packed(dict(reversed(tensors.items())))))
    same("metadata", with_weights(packed(tensors, meta={"format": "pt", "\u00e9": "\u4e2d"})))
    same("tensors of no use", with_weights(packed({**tensors, "model.layers.99.nonsense": ("I64", [3], bytes(24))})))
    f = folder()
    os.symlink("nowhere", os.path.join(f, "README.md"))
    same("a broken link beside the files", f)
    same("a slash behind the folder", plain + "/")
    f = folder("config.json", "tokenizer.json")
    for x in ("config.json", "tokenizer.json"):
        put(f, x, json.dumps(read_json(x), indent=8, ensure_ascii=True) + "\n\n")
    same("JSON with escapes and spaces", f)
    f = folder("generation_config.json")
    same("no generation_config.json", f)
    f = changed("config.json", lambda j: j.update({"hidden_size": 256.0, "unknown": {"a": [None, 1e5]}, "rope_theta": 1e4}))
    same("1.0 for 1 and unknown keys in config.json", f)


for part in (whole_files, safetensors_files, index_files, wrong_tensors, configurations, tokenizers, templates, prompts, output,
             accepted):
    if len(sys.argv) < 4 or part.__name__ in sys.argv[3:]:
        part()
sys.exit(failed != 0)
