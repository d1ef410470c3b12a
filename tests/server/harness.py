"""lm-evaluation-harness against `hadal serve`. tests/cli/serve_lm_eval.sh runs it.

    PYTHON_WITH_LM_EVAL tests/server/harness.py build/hadal

Its numbers are those of the harness's own `hf` model with transformers in float32 (tests/data/serve/reference.json,
written by tools/make_lm_eval_reference.py). Prints `ok NAME` or `FAIL NAME why`.
"""
import glob
import gzip
import hashlib
import json
import os
import subprocess
import sys

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false",
                  HF_DATASETS_DISABLE_PROGRESS_BARS="1", TQDM_DISABLE="1", LMEVAL_LOG_LEVEL="ERROR")

from kit import MODEL, Folder, Server, check, finish

DATA = "tests/data/serve"
REFERENCE = DATA + "/reference.json"
CONTEXT = {"tiny": 256, "small": 1024, "wide": 1024}
BOS = "<｜begin▁of▁sentence｜>"
KEY = "harness-key"

CHOICES = ["tiny_problems", "tiny_pieces", "tiny_alone"]
ANSWERS = ["tiny_answers", "tiny_cut"]
REAL = ["mmlu_letters", "mmlu_texts", "gsm8k_words"]

# What the reference has: name, model, tasks, options of the harness's hf model, with a chat template or without.
RUNS = {
    "tiny": ("tiny", CHOICES + ["tiny_windows"] + ANSWERS, {"add_bos_token": False}, False),
    "tiny, chat": ("tiny", ["tiny_chat"], {"think_end_token": "</think>"}, True),
    "small": ("small", REAL, {"add_bos_token": False}, False),
    "small, BOS": ("small", REAL, {"add_bos_token": True}, False),
    "wide": ("wide", REAL, {"add_bos_token": False}, False),
}

# --- models -----------------------------------------------------------------------------------------------------------


def begins_with_bos(tokenizer):
    """The way in which R1-Distill-Llama's tokenizer says it; transformers does not heed add_bos_token."""
    bos = {"SpecialToken": {"id": BOS, "type_id": 0}}
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing", "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {BOS: {"id": BOS, "ids": [0], "tokens": [BOS]}}}


def wide_model(program, folder):
    """Random weights with DeepSeek-V3's own vocabulary. None without the reference data, which has that."""
    tokenizer = os.path.join(os.environ.get("HADAL_SHARED", "../shared"),
                             "golden/tokenizers/deepseek-v3/tokenizer.json.gz")
    if not os.path.exists(tokenizer):
        return None
    to = os.path.join(folder.path, "wide")
    subprocess.run([program, "init", DATA + "/config.json", to, "--seed", "7"], check=True, stdout=subprocess.DEVNULL)
    with gzip.open(tokenizer, "rb") as f, open(to + "/tokenizer.json", "wb") as out:
        out.write(f.read())
    with open(to + "/tokenizer_config.json", "w", encoding="utf-8") as f:
        json.dump({"bos_token": BOS, "eos_token": "<｜end▁of▁sentence｜>", "add_bos_token": True,
                   "tokenizer_class": "LlamaTokenizerFast"}, f)
    return to


def models(program, folder):
    """Their folders by name."""
    small = folder.model("small", MODEL, tokenizer=begins_with_bos)
    return {"tiny": "models/tiny", "small": small, "wide": wide_model(program, folder)}


def weights(model):
    """One checksum of all weights."""
    sum_ = hashlib.sha256()
    for path in sorted(glob.glob(model + "/*.safetensors")):
        with open(path, "rb") as f:
            sum_.update(f.read())
    return sum_.hexdigest()


# --- the harness ------------------------------------------------------------------------------------------------------


def results(samples):
    """Of each task and document what the model answered: [log-likelihood, is it greedy] of each choice, a
    log-likelihood of a long text, or a text."""
    return {task: [[r[0] for r in s["resps"]] for s in sorted(of, key=lambda s: s["doc_id"])]
            for task, of in samples.items()}


def evaluate(model, tasks, chat=False, **options):
    """Runs the harness in this process."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=DATA, include_defaults=False)
    got = lm_eval.simple_evaluate(model=model, tasks=tasks, task_manager=manager, apply_chat_template=chat,
                                  bootstrap_iters=0, **options)
    return results(got["samples"])


def flat(x):
    return [z for y in x for z in flat(y)] if isinstance(x, (list, tuple)) else [x]


def compare(name, tasks, got, want):
    """Log-likelihoods within 1e-3, all else equal. Gives the largest difference and how many there were."""
    far, count = 0, 0
    for task in tasks:
        a, b = flat(got.get(task, [])), flat(want[task])
        numbers = [abs(x - y) for x, y in zip(a, b) if isinstance(y, float)]
        others = [(x, y) for x, y in zip(a, b) if not isinstance(y, float) and x != y]
        good = len(a) == len(b) and not others and all(d < 1e-3 for d in numbers)  # also NaN fails
        check("%s: %s" % (name, task), good, len(a), len(b), max(numbers, default=0), others[:3])
        far, count = max([far] + numbers), count + len(numbers)
    return far, count


# --- against the server -----------------------------------------------------------------------------------------------

worst, choices = 0, 0


def through(s, model, reference, name, tasks, kind="local-completions", chat=False, batch_size=1, **options):
    """The tasks through the server give the reference's numbers."""
    global worst, choices
    path = "/v1/chat/completions" if kind == "local-chat-completions" else "/v1/completions"
    options = dict({"model": model, "base_url": "http://127.0.0.1:%d%s" % (s.port, path), "max_retries": 1,
                    "max_length": CONTEXT[model]}, **options)
    try:
        got = evaluate(kind, tasks, chat, model_args=options, batch_size=batch_size)
    except Exception as x:
        check(name, False, repr(x))
        return
    far, count = compare(name, tasks, got, reference)
    worst, choices = max(worst, far), choices + count


def command(s, folder, reference):
    """As people run it: the command, which finds the tokenizer by itself."""
    out = os.path.join(folder.path, "results")
    args = "model=tiny,base_url=http://127.0.0.1:%d/v1/completions,max_length=%d" % (s.port, CONTEXT["tiny"])
    r = subprocess.run([sys.executable, "-m", "lm_eval", "run", "--model", "local-completions", "--model_args", args,
                        "--tasks", "tiny_problems,tiny_answers", "--include_path", DATA, "--log_samples",
                        "--output_path", out], capture_output=True, text=True)
    if not check("command: ends well", r.returncode == 0, r.stderr[-600:]):
        return
    samples = {}
    for path in glob.glob(out + "/**/samples_*.jsonl", recursive=True):
        with open(path, encoding="utf-8") as f:
            samples[os.path.basename(path)[len("samples_"):].rsplit("_", 1)[0]] = [json.loads(line) for line in f]
    check("command: writes its samples", sorted(samples) == ["tiny_answers", "tiny_problems"], list(samples))
    got = results(samples)
    got["tiny_problems"] = [[(float(a), b in (True, "True")) for a, b in of] for of in got["tiny_problems"]]
    compare("command", list(samples), got, reference)


def tiny(program, folder, model, runs):
    want = runs["tiny"]
    with Server(program, model, "--compute", "f32", "--name", "tiny") as s:
        command(s, folder, want)
        through(s, "tiny", want, "remote tokenizer", CHOICES + ["tiny_windows"] + ANSWERS, tokenizer_backend="remote")
        through(s, "tiny", want, "batches", CHOICES + ANSWERS, batch_size=7)
        through(s, "tiny", want, "at once", CHOICES + ANSWERS, num_concurrent=8)
        through(s, "tiny", want, "batches at once", CHOICES, batch_size=3, num_concurrent=4)
        through(s, "tiny", want, "requests as text", ["tiny_pieces"], tokenized_requests=False)
        through(s, "tiny", want, "batches of text", ["tiny_pieces"], tokenized_requests=False, batch_size=5)
        through(s, "tiny", want, "tokenizer of transformers", CHOICES + ANSWERS, tokenizer=model)
        through(s, "tiny", runs["tiny, chat"], "chat", ["tiny_chat"], "local-chat-completions", True)
        through(s, "tiny", runs["tiny, chat"], "chats at once", ["tiny_chat"], "local-chat-completions", True,
                num_concurrent=8)


def small(program, model, runs):
    """A server with a key; its model's tokenizer has bytes and pieces of characters."""
    os.environ["OPENAI_API_KEY"] = KEY
    with Server(program, model, "--compute", "f32", "--name", "small", env={"HADAL_API_KEY": KEY}) as s:
        through(s, "small", runs["small"], "small vocabulary", REAL, batch_size=8, auth_token=KEY)
        through(s, "small", runs["small, BOS"], "small vocabulary, BOS", REAL, num_concurrent=8, tokenizer=model,
                add_bos_token=True)
    del os.environ["OPENAI_API_KEY"]


def wide(program, model, runs):
    with Server(program, model, "--compute", "f32", "--name", "wide") as s:
        through(s, "wide", runs["wide"], "DeepSeek-V3's vocabulary", REAL, num_concurrent=8)


def main(program):
    with open(REFERENCE, encoding="utf-8") as f:
        reference = json.load(f)
    with Folder() as folder:
        os.environ["HF_HOME"] = os.path.join(folder.path, "cache")  # nothing is taken from elsewhere, nothing stays
        folders = models(program, folder)
        for name, path in folders.items():
            if path:
                check("reference: of these weights, %s" % name, weights(path) == reference["weights"][name])
        tiny(program, folder, folders["tiny"], reference["runs"])
        small(program, folders["small"], reference["runs"])
        if folders["wide"]:
            wide(program, folders["wide"], reference["runs"])
        else:
            print("SKIP a model with DeepSeek-V3's vocabulary: no reference data")
    print("largest difference of %d log-likelihoods: %.1e" % (choices, worst))
    finish()


if __name__ == "__main__":
    main(sys.argv[1])
