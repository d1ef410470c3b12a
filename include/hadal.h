/* hadal: run DeepSeek-family models (DeepSeek-V2, V3, R1, V3.1, V3.2 and the R1 distills) from their Hugging Face
 * folders.
 *
 * Rules that hold everywhere:
 *  - Functions return HADAL_OK (0) or a negative code, and then write one sentence into the hadal_error (may be NULL).
 *    The library never prints and never ends the process.
 *  - What X_open gives, X_close frees (NULL is fine). Texts and arrays that the header calls "owned by the caller" are
 *    freed with hadal_free. Everything else that is returned is borrowed.
 *  - Option structs begin with `size` = sizeof the struct, so that they can grow; zero in any other field is its
 * default.
 *  - A model is constant after opening and may be shared by threads; a session belongs to one thread at a time.
 *  - Structured results (info, check, bench ...) come as JSON text.
 */
#ifndef HADAL_H
#define HADAL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define HADAL_API __attribute__((visibility("default")))
#else
#define HADAL_API
#endif

#define HADAL_VERSION "0.4.0"
HADAL_API const char *hadal_version(void);

enum {
    HADAL_OK = 0,
    HADAL_ERR_NOMEM = -1,       /* memory is out */
    HADAL_ERR_IO = -2,          /* the operating system refused: disk full, no permission to write ... */
    HADAL_ERR_FORMAT = -3,      /* a file is not there, or a file or text is not what it should be */
    HADAL_ERR_ARG = -4,         /* the caller asked for something impossible */
    HADAL_ERR_UNSUPPORTED = -5, /* well-formed, but hadal does not do it */
    HADAL_ERR_CANCELLED = -6,   /* a callback asked to stop */
    HADAL_ERR_COMM = -7,        /* training: another rank failed */
    HADAL_ERR_BUSY = -8         /* an engine's queue is full: try again later */
};

typedef struct hadal_error {
    int code;
    char text[512];
} hadal_error;

HADAL_API void hadal_free(void *p);

/* Called during long work: `done` of `total` (bytes or items) of `what`. Nonzero cancels. */
typedef int hadal_progress(void *arg, uint64_t done, uint64_t total, const char *what);

/* ---- model ----------------------------------------------------------------------------------------------------- */

typedef struct hadal_model hadal_model;

typedef struct hadal_model_options {
    size_t size;
    int threads;           /* 0: as many as the machine has processors */
    const char *compute;   /* "bf16" (default): products of BF16 operands with F32 sums; "f32": F32 throughout */
    const char *kernels;   /* NULL: best of the machine; or "portable", "avx2", "avx512", "avx512bf16", "amx" */
    const char *attention; /* MLA: NULL: whichever is cheaper; "expanded" or "absorbed" forces one (diagnostic) */
    hadal_progress *progress;
    void *progress_arg;
} hadal_model_options;

/* Opens a Hugging Face folder: config.json, *.safetensors, tokenizer.json ... Weights stay memory-mapped. */
HADAL_API int hadal_model_open(hadal_model **out, const char *folder, const hadal_model_options *o, hadal_error *e);
HADAL_API void hadal_model_close(hadal_model *m);
HADAL_API int hadal_model_vocab(const hadal_model *m);           /* width of a row of logits */
HADAL_API int hadal_model_max_context(const hadal_model *m);     /* max_position_embeddings */
HADAL_API int hadal_model_mtp_layers(const hadal_model *m);      /* MTP layers present: drafts are possible when > 0 */
HADAL_API const char *hadal_model_kernels(const hadal_model *m); /* the kernel level in use */

/* What a folder or a bare config.json holds, as JSON (owned by the caller): kind, parameters in all and active, bytes
 * by type, cache bytes a token, memory at `context` tokens (0: max_position_embeddings), tokenizer, template.
 * Reads no weights. Fields are documented in docs/info.md. */
HADAL_API int hadal_info(const char *path, int64_t context, char **json, hadal_error *e);

/* ---- text ------------------------------------------------------------------------------------------------------ */

typedef struct hadal_tokenizer hadal_tokenizer;

/* hadal_model_open opens the folder's tokenizer too (hadal_model_tokenizer: NULL when the folder has none; borrowed).
 */
HADAL_API int hadal_tokenizer_open(hadal_tokenizer **out, const char *folder, hadal_error *e);
HADAL_API void hadal_tokenizer_close(hadal_tokenizer *t);
HADAL_API const hadal_tokenizer *hadal_model_tokenizer(const hadal_model *m);

enum {
    HADAL_PARSE_SPECIAL = 1, /* special tokens written in the text become their ids (rendered chats) */
    HADAL_ADD_SPECIAL = 2    /* add BOS / EOS as the tokenizer does by default (plain prompts) */
};
/* ids: owned by the caller. */
HADAL_API int hadal_tokenize(const hadal_tokenizer *t, const char *text, size_t n, unsigned flags, int32_t **ids,
                             size_t *count, hadal_error *e);
/* Text of ids, owned by the caller, terminated; invalid UTF-8 becomes U+FFFD. *n (may be NULL): its length. */
HADAL_API int hadal_detokenize(const hadal_tokenizer *t, const int32_t *ids, size_t count, int skip_special,
                               char **text, size_t *n, hadal_error *e);
HADAL_API int hadal_tokenizer_size(const hadal_tokenizer *t);
HADAL_API int hadal_tokenizer_eos(const hadal_tokenizer *t); /* -1: none */
/* The bytes that a token stands for; borrowed from the tokenizer, need not be whole characters. NULL: no such token. */
HADAL_API const char *hadal_token_bytes(const hadal_tokenizer *t, int32_t id, size_t *n);
HADAL_API int hadal_token_is_special(const hadal_tokenizer *t, int32_t id);
/* {"tokenizer_class", "vocab_size", "model_max_length", "bos_token", "eos_token", "pad_token", "unk_token",
 * "add_bos_token", "add_eos_token", "chat_template"}, null where there is none; owned by the caller. */
HADAL_API int hadal_tokenizer_info(const hadal_tokenizer *t, char **json, hadal_error *e);
/* The text of one token as a person should see it in a list (bytes escaped), owned by the caller. */
HADAL_API int hadal_token_text(const hadal_tokenizer *t, int32_t id, char **text, hadal_error *e);

/* Renders a conversation with the checkpoint's chat template (V3.2: its own encoding). messages_json: a list of
 * {"role", "content", ...}; options_json (NULL: "{}"): an object with "add_generation_prompt" (default true),
 * "thinking" (bool), "tools" (list), "continue_final_message" (bool), and any further variable of the template.
 * text: owned by the caller. */
HADAL_API int hadal_chat_render(const hadal_model *m, const char *messages_json, const char *options_json, char **text,
                                hadal_error *e);
/* The same for a folder without loading its weights. */
HADAL_API int hadal_chat_render_folder(const char *folder, const char *messages_json, const char *options_json,
                                       char **text, hadal_error *e);
/* Whether the rendered prompt leaves the model inside its thinking part (ends with an open <think>). */
HADAL_API int hadal_chat_is_thinking(const char *rendered);
/* How an answer begins. */
enum {
    HADAL_PLAIN,    /* with content: thinking is switched off */
    HADAL_THINKS,   /* with reasoning, up to </think> */
    HADAL_MAY_THINK /* with reasoning if it begins with <think>: the template leaves it to the model */
};
/* Takes an answer apart, thinking: HADAL_PLAIN ...: {"reasoning": text|null, "content": text|null, "tool_calls":
 * [{"name","arguments"}]}. */
HADAL_API int hadal_chat_parse(const hadal_model *m, const char *answer, int thinking, char **json, hadal_error *e);

/* Renders and tokenizes a conversation. Texts of special and other added tokens inside of the messages stay text; only
 * what the template itself writes becomes control tokens. An assistant message may have the member "token_ids" (a list
 * of ids, what the model once wrote as this message, its end token left out): these very ids stand in its place, if the
 * template puts the message there unchanged; else it is rendered as usual. ids: owned by the caller. *thinking (may be
 * NULL): HADAL_PLAIN ... of the answer. */
HADAL_API int hadal_chat_encode(const hadal_model *m, const char *messages_json, const char *options_json,
                                int32_t **ids, size_t *count, int *thinking, hadal_error *e);
/* Of a message's sampled ids, how many at the head are reasoning, </think> included; 0: none of them. */
HADAL_API size_t hadal_chat_reasoning_ids(const hadal_model *m, const int32_t *ids, size_t count);

/* An answer taken apart while it is being written. Pieces come as soon as they are certain; no marker is ever split. */
typedef struct hadal_reader hadal_reader;
enum {
    HADAL_PIECE_REASONING, /* more reasoning */
    HADAL_PIECE_CONTENT,   /* more content */
    HADAL_PIECE_CALL,      /* text: the name of tool call number `call` */
    HADAL_PIECE_ARGUMENTS, /* more of its arguments, JSON */
    HADAL_PIECE_CALL_END   /* valid: its arguments are a JSON object */
};
typedef struct hadal_piece {
    int kind;
    const char *text; /* not terminated; borrowed during the call */
    size_t n;
    int call, valid;
} hadal_piece;
typedef void hadal_on_piece(void *arg, const hadal_piece *p);
/* thinking: HADAL_PLAIN ... (see hadal_chat_encode); tools: look for tool calls. */
HADAL_API int hadal_reader_open(hadal_reader **out, const hadal_model *m, int thinking, int tools,
                                hadal_on_piece *on_piece, void *arg, hadal_error *e);
HADAL_API int hadal_reader_feed(hadal_reader *r, const char *text, size_t n, hadal_error *e);
HADAL_API int hadal_reader_finish(hadal_reader *r, hadal_error *e); /* what was held back goes out */
HADAL_API void hadal_reader_close(hadal_reader *r);

/* What an answer may be, token by token. spec_json:
 *   {"type": "json_object"}                           any JSON object
 *   {"type": "json_schema", "schema": {...}}          a value that the schema accepts; what it cannot enforce is an
 * error
 *   {"type": "tools", "tools": [...], "choice": "auto" | "required" | "NAME", "parallel": bool}
 *                                                     tool calls in the checkpoint's own format, arguments by the
 * tools' schemas; "auto": any text, but calls are well-formed and in each of them "thinking": true: the answer begins
 * with free reasoning, up to </think>. Errors are HADAL_ERR_ARG (a bad schema) and HADAL_ERR_UNSUPPORTED. A grammar is
 * constant and may be shared. */
typedef struct hadal_grammar hadal_grammar;
HADAL_API int hadal_grammar_open(hadal_grammar **out, const hadal_model *m, const char *spec_json, hadal_error *e);
HADAL_API void hadal_grammar_close(hadal_grammar *g);

/* ---- generation ------------------------------------------------------------------------------------------------ */

typedef struct hadal_session hadal_session; /* one growing sequence and its cache */

HADAL_API int hadal_session_open(hadal_session **out, hadal_model *m, int max_tokens /* 0: the model's */,
                                 hadal_error *e);
HADAL_API void hadal_session_close(hadal_session *s);
/* Makes the session hold exactly these tokens: keeps the longest common prefix with what it holds, computes the rest.
 * After it hadal_session_logits gives the logits for the next token. n >= 1. */
HADAL_API int hadal_session_sync(hadal_session *s, const int32_t *tokens, int n, hadal_error *e);
/* Logits [vocab] after the last token; borrowed until the next call with this session; NULL before the first sync. */
HADAL_API const float *hadal_session_logits(const hadal_session *s);
HADAL_API int hadal_session_length(const hadal_session *s);           /* tokens held */
HADAL_API uint64_t hadal_session_cache_bytes(const hadal_session *s); /* cache memory that the held tokens take */

typedef struct hadal_sampling {
    size_t size;
    float temperature;        /* 0: greedy */
    int top_k;                /* 0: off */
    float top_p;              /* 0 or 1: off */
    float min_p;              /* 0: off */
    float repetition_penalty; /* 0 or 1: off; over prompt and answer, as in transformers */
    float presence_penalty;   /* over the answer, as in the OpenAI API */
    float frequency_penalty;
    uint64_t seed;           /* same seed, same text, whatever the number of threads */
    int max_tokens;          /* 0: until the context is full */
    const char *const *stop; /* texts that end the answer (not part of it); NULL or n_stop of them */
    int n_stop;
    int ignore_eos;
    int logprobs; /* > 0: that many most likely tokens with each token (at most 20); -1: the chosen one's only */
    int drafts;   /* > 0: MTP speculative decoding with that many drafted tokens a step (greedy and sampled) */
    hadal_progress *progress; /* called with tokens while a prompt is read; cancelling is HADAL_ERR_CANCELLED */
    void *progress_arg;
} hadal_sampling;

/* Defaults from the checkpoint's generation_config.json (do_sample false means temperature 0). */
HADAL_API void hadal_sampling_defaults(const hadal_model *m, hadal_sampling *out);

typedef struct hadal_token { /* one generated token */
    int sequence;            /* index into the batch */
    int32_t id;
    const char *text; /* what can be shown now: whole characters only, may be empty; borrowed during the call */
    size_t n;
    float logprob;          /* natural log, of the distribution before temperature and filters; 0 unless asked for */
    const int32_t *top_ids; /* [n_top] most likely first, when asked for */
    const float *top_logprobs;
    int n_top;
} hadal_token;
/* Nonzero stops this sequence (finish "cancelled"). */
typedef int hadal_on_token(void *arg, const hadal_token *t);

typedef struct hadal_result { /* of one sequence; release with hadal_result_clear */
    char *text;               /* the answer without stop text; special tokens skipped */
    size_t n;
    int32_t *ids; /* all generated ids, EOS included when it came */
    int n_ids;
    const char *finish; /* "eos", "stop", "length", "cancelled" */
    int prompt_tokens, cached_tokens;
    double prompt_seconds, seconds; /* until the first token; from there to the last */
    int draft_proposed, draft_accepted;
} hadal_result;
HADAL_API void hadal_result_clear(hadal_result *r);

/* Continues the prompt of one session. on_token may be NULL. */
HADAL_API int hadal_generate(hadal_session *s, const int32_t *prompt, int n, const hadal_sampling *o,
                             hadal_on_token *on_token, void *arg, hadal_result *out, hadal_error *e);
/* The same for a batch of sessions of one model with prompts of any lengths, one step of all at a time. */
HADAL_API int hadal_generate_batch(hadal_session **s, int batch, const int32_t *const *prompts, const int *n,
                                   const hadal_sampling *o, hadal_on_token *on_token, void *arg, hadal_result *out,
                                   hadal_error *e);

/* ---- engine: many requests of one model at once ------------------------------------------------------------------ */

/* An engine answers requests that come and go, on a thread of its own: continuous batching over a paged cache with a
 * memory budget, prompts in chunks between the steps of running answers, what prompts have in common computed once. A
 * request's tokens do not depend on what else is running. */
typedef struct hadal_engine hadal_engine;

typedef struct hadal_engine_options {
    size_t size;
    uint64_t
        cache_bytes; /* memory for the caches of running answers and of prefixes; 0: a quarter of the free memory */
    int sequences;   /* answers written at once; 0: 64 */
    int queue;       /* answers that may wait; 0: 256 */
    int context;     /* most tokens of prompt and answer; 0: the model's */
    int chunk;       /* most rows of prompt a step; 0: 512 */
    int drafts;      /* MTP speculative decoding with that many drafts a step; 0: off */
    const char *cache_folder;    /* prefixes are also kept in this folder and survive a restart; NULL: nowhere */
    uint64_t cache_folder_bytes; /* at most so much there; 0: 10 GB */
    void (*warn)(void *arg, const char *line); /* of what went wrong but hurts nobody; one sentence, any thread */
    void *warn_arg;
} hadal_engine_options;
HADAL_API int hadal_engine_open(hadal_engine **out, hadal_model *m, const hadal_engine_options *o, hadal_error *e);
/* Cancels what is running, waits for the callbacks, writes what is to be kept. */
HADAL_API void hadal_engine_close(hadal_engine *g);

typedef struct hadal_bias {
    int32_t id;
    float bias; /* is added to the token's logit */
} hadal_bias;

/* What was given with a request comes back to it on the engine's thread, which must not be held up. `sample` counts the
 * request's answers from 0. */
typedef struct hadal_request_events {
    /* logprobs and top of prompt token number `at` (>= 1), in order, before the first token: when prompt_logprobs. The
     * hadal_token has no text. */
    void (*prompt)(void *arg, int at, const hadal_token *t);
    void (*token)(void *arg, const hadal_token *t); /* sequence: the sample. May be NULL */
    /* The result is cleared after the call. r->finish "error": e says why. The last event of its sample. */
    void (*done)(void *arg, int sample, const hadal_result *r, const hadal_error *e);
    void *arg;
} hadal_request_events;

typedef struct hadal_request {
    size_t size;
    const int32_t *prompt; /* all pointers: copied, but the grammar, which must live until done */
    int n;
    int samples;             /* answers, 0: 1. Answer number k is drawn with seed and k */
    hadal_sampling sampling; /* drafts and progress are not used; max_tokens 0: until the context is full, -1: none, the
                                prompt is read and that is all */
    const hadal_bias *bias;
    int n_bias;
    const hadal_grammar *grammar; /* NULL: anything */
    int prompt_logprobs;          /* as sampling.logprobs, for the prompt's tokens; 0: none */
    hadal_request_events events;
} hadal_request;
/* Queues a request. *ticket names it for hadal_engine_cancel. What is impossible is HADAL_ERR_ARG here and has no
 * events; a full queue is HADAL_ERR_BUSY. Events may come before this function returns. Any thread. */
HADAL_API int hadal_engine_submit(hadal_engine *g, const hadal_request *r, uint64_t *ticket, hadal_error *e);
/* Its answers end soon, with finish "cancelled"; a ticket that is over is fine. Any thread. */
HADAL_API void hadal_engine_cancel(hadal_engine *g, uint64_t ticket);

typedef struct hadal_engine_stats {
    size_t size;
    int running, waiting, sequences, queue, context; /* answers now; limits */
    int64_t pages_total, pages_running, pages_kept;  /* of the cache: in running answers; kept for prefixes alone */
    int page_tokens;
    uint64_t page_bytes, cache_folder_bytes; /* of a page; now on disk */
    uint64_t prompt_tokens, cached_tokens, generated_tokens, steps, preemptions, draft_proposed, draft_accepted;
} hadal_engine_stats;
HADAL_API void hadal_engine_get_stats(hadal_engine *g, hadal_engine_stats *out);

/* ---- convert, check, trace, bench ------------------------------------------------------------------------------- */

typedef struct hadal_convert_options {
    size_t size;
    const char *to;        /* "bf16", "f32", "fp8", "native" (a checkpoint that training starts from); NULL when `in` is
                              such a checkpoint: the type it names */
    const char *mtp;       /* "keep" (default), "hide", "drop" */
    const char *scale_fmt; /* fp8: NULL for F32 scales, "ue8m0" for powers of two */
    int threads;
    hadal_progress *progress; /* bytes of input */
    void *progress_arg;
} hadal_convert_options;
/* Streams a checkpoint into another type, also from and to native checkpoints of training; bounded memory; resumable.
 * json (may be NULL): what was done. */
HADAL_API int hadal_convert(const char *in, const char *out, const hadal_convert_options *o, char **json,
                            hadal_error *e);

/* A randomly initialised checkpoint (normal, initializer_range) for a config.json: BF16, or FP8 when the configuration
 * has a quantization_config. For tests, demonstrations and benchmarks. */
HADAL_API int hadal_init(const char *config_path, const char *out, uint64_t seed, hadal_progress *progress, void *arg,
                         hadal_error *e);

typedef struct hadal_init_options {
    size_t size;
    uint64_t seed;
    const char *type;         /* "f32", "bf16", "fp8"; NULL: as the configuration says */
    hadal_progress *progress; /* bytes written */
    void *progress_arg;
} hadal_init_options;
/* The same with options. config: a config.json, a folder with one, or a preset: "debug", "tiny", "16b", "671b", "v3.2".
 * json (may be NULL): what was made. */
HADAL_API int hadal_init_with(const char *config, const char *out, const hadal_init_options *o, char **json,
                              hadal_error *e);

/* Compares logits with a golden-logits JSONL (lines of {"prompt", "tokens", "logits"}). `line` gets a JSON object for
 * every line as it is done; json: the summary with "pass". A prompt without "tokens" is tokenized. */
HADAL_API int hadal_check(hadal_model *m, const char *golden, double max_kl, void (*line)(void *arg, const char *json),
                          void *arg, char **json, hadal_error *e);

/* Writes such a file: our logits for these texts (BOS added as the tokenizer does). */
HADAL_API int hadal_golden_write(hadal_model *m, const char *const *prompts, int count, const char *path,
                                 hadal_error *e);

/* Our tensors under the names of a golden safetensors file (docs/check.md lists them), written to `out`. missing (may
 * be NULL): the golden names that this model and number format cannot make, one a line; owned by the caller. */
HADAL_API int hadal_trace(hadal_model *m, const char *golden, const char *out, char **missing, hadal_progress *progress,
                          void *arg, hadal_error *e);

typedef struct hadal_bench_options {
    size_t size;
    int prompt;   /* tokens of the prompt; 0: leave it out (both 0: 512 and 64) */
    int generate; /* tokens to generate one by one; 0: leave it out */
    int depth;    /* tokens in the cache beforehand */
    int repeat;   /* 0: 3; the median counts */
    hadal_progress *progress;
    void *progress_arg;
} hadal_bench_options;
/* Speed of prompt processing and generation, with the share of the machine's limits, as JSON (docs/performance.md). */
HADAL_API int hadal_bench(hadal_model *m, const hadal_bench_options *o, char **json, hadal_error *e);
/* Read bandwidth and peak of matrix products of this machine, as JSON. */
HADAL_API int hadal_bench_machine(int threads, const char *kernels, char **json, hadal_error *e);

/* ---- data, evaluation, plots ----------------------------------------------------------------------------------- */

typedef struct hadal_data_options {
    size_t size;
    const char *task;  /* tiny-r1: "all" (default), or of calc, count, add, search: "calc,add" */
    const char *phase; /* tiny-r1: "clean" (default), "mixed", "work" */
    int64_t documents; /* 0: 40000 */
    uint64_t seed;
    int held_out; /* prompts that are kept out of training, else only others */
    hadal_progress *progress;
    void *progress_arg;
} hadal_data_options;
/* Writes made-up training data as JSON lines of {"prompt", "completion", ...}. kind: "tiny-r1" (docs/tiny-r1.md).
 * json (may be NULL): what was written. */
HADAL_API int hadal_data(const char *kind, const char *out, const hadal_data_options *o, char **json, hadal_error *e);

typedef struct hadal_eval_options {
    size_t size;
    int limit;            /* prompts (mmlu: of each subject); 0: all of the data, tiny-r1 200 */
    const char *decoding; /* "greedy", "sampled"; NULL: tiny-r1 both; on data sampled when samples or a temperature are
                             given, else greedy */
    double temperature;   /* of sampled answers; 0: tiny-r1 1, on data 0.6 */
    int samples;          /* sampled answers a prompt; 0: 1 */
    uint64_t seed;        /* the same seed gives the same report */
    hadal_progress *progress;
    void *progress_arg;
    /* Evaluations on data: */
    const char *data;     /* file or folder (docs/eval.md) */
    const char *examples; /* file with worked examples; NULL: one beside the data */
    int shots;            /* worked examples before each question; 0: as usual for the task; -1: none */
    int chat;             /* nonzero: through the chat template */
    int thinking;         /* chat templates that have the choice: 1 thinks, -1 does not, 0: says nothing */
    double top_p;         /* of sampled answers; 0: 0.95 */
    int max_tokens;       /* of an answer; 0: as usual for the task */
    int context;          /* tokens of prompt and answer; 0: the model's */
    int sequences;        /* answers written at once; 0: 32 */
    const char *output; /* JSON lines of all prompts, answers and scores are written here; what the file has already is
                           not asked again */
    const char *prompt_member, *answer_member; /* jsonl: names in a row; NULL: "prompt", "answer" */
} hadal_eval_options;
/* Judges a model's answers by a rule. task: "tiny-r1", "tiny-r1:calc,count,add,search" (some of these); on data:
 * "gsm8k", "math", "mmlu", "mmlu:SUBJECT", "gpqa", "humaneval", "jsonl", "jsonl:exact", "jsonl:letter". json: the
 * report of docs/eval.md, owned by the caller. */
HADAL_API int hadal_eval(hadal_model *m, const char *task, const hadal_eval_options *o, char **json, hadal_error *e);

/* An SVG page of the curves in the folder of a training run (its metrics.jsonl), written to `out`. */
HADAL_API int hadal_plot(const char *run, const char *out, hadal_error *e);

/* ---- corpora ---------------------------------------------------------------------------------------------------- */

typedef struct hadal_corpus_options {
    size_t size;
    const char *text_field; /* the member of a JSONL row that holds the text; NULL: "text" */
    unsigned flags;         /* HADAL_PARSE_SPECIAL, HADAL_ADD_SPECIAL; 0: a text is text, whatever it says */
    int skip_damaged;       /* damaged lines are counted and left out; 0: the first one is an error */
    int threads;            /* 0: as many as the machine has processors */
    void (*note)(void *arg, const char *line); /* of damaged lines; one sentence */
    void *note_arg;
    hadal_progress *progress; /* bytes of input */
    void *progress_arg;
} hadal_corpus_options;
/* Writes the tokens of text files (.jsonl, .txt, also .gz and .zst of them) as a token file for training: ids as
 * uint32, little endian, the EOS behind every document. In constant memory; `out` appears when all is done. json (may
 * be NULL): {"out", "documents", "tokens", "bytes", "damaged"}. */
HADAL_API int hadal_tokenize_corpus(const hadal_tokenizer *t, const char *const *files, int n_files, const char *out,
                                    const hadal_corpus_options *o, char **json, hadal_error *e);

#ifdef __cplusplus
}
#endif
#endif
