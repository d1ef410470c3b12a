/* libFuzzer target: a byte that chooses the way of writing, messages as JSON up to the first zero, options as JSON.
 * A prompt is made or refused with a sentence; no control token comes from what the messages say, and no mark stays.
 * clang -fsanitize=fuzzer,address,undefined -Isrc tests/fuzz/fuzz_chat.c ... */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "text/chat_encode.h"
#include "text/unicode.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static const char *const templates[] = {
    NULL, /* V3.2 */
    /* V3.1's ways: a split answer, arguments as text, state between messages */
    "{% set ns = namespace(user=false, tool=false) %}{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' "
    "%}{{ m['content'] }}{% elif m['role'] == 'user' %}{% set ns.user = true %}{{ '<U>' + m['content'] }}{% elif "
    "m['role'] == 'assistant' %}{% if ns.user %}{{ '<A></think>' }}{% endif %}{% set ns.user = false %}{% if "
    "m['tool_calls'] is defined %}{% for t in m['tool_calls'] %}{{ '<｜tool▁calls▁begin｜>' + t['function']['name'] + "
    "'<sep>' + t['function']['arguments'] }}{% endfor %}{{ eos_token }}{% else %}{% set content = m['content'] %}{% if "
    "'</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{ content + eos_token }}{% "
    "endif %}{% else %}{{ '<sep>' + m['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt and ns.user %}{{ "
    "'<A>' }}{{ '<think>' if thinking else '</think>' }}{% endif %}",
    /* tools, arguments as JSON, contents that are trimmed, cut and measured */
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ '<U>' if m.role == 'user' else '<A>' }}{{ "
    "m.content | trim }}{{ m.content | length }}{{ m.content[1:4] }}{% if m.tool_calls %}{{ "
    "m.tool_calls[0].function.arguments | tojson }}{% endif %}{{ m.name }}{{ m.content | upper }}{{ eos_token }}{% "
    "endfor %}"};
enum { STYLES = sizeof templates / sizeof *templates };

static tokenizer *bytes; /* one token a byte, and a few added ones */
static chat_style styles[STYLES];

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    static const char *const added[] = {"<U>", "<A>", "<eos>", "<bos>", "<think>", "</think>", "<sep>"};
    static const char config[] = "{\"bos_token\": \"<bos>\", \"eos_token\": \"<eos>\"}";
    (void)argc, (void)argv;
    json_t *vocab = json_object(), *list = json_array();
    error e;
    for (int b = 0; b < 256; b++) {
        char letter[5] = {0};
        utf8_put(letter, byte_to_letter((uint8_t)b));
        json_object_set_new(vocab, letter, json_integer(b));
    }
    for (int i = 0; i < 7; i++)
        json_array_append_new(list, json_pack("{s:i,s:s,s:b}", "id", 256 + i, "content", added[i], "special", i < 4));
    json_t *all = json_pack("{s:o,s:{s:s,s:o,s:[]},s:{s:s},s:{s:s,s:b,s:b}}", "added_tokens", list, "model", "type",
                            "BPE", "vocab", vocab, "merges", "decoder", "type", "ByteLevel", "pre_tokenizer", "type",
                            "ByteLevel", "add_prefix_space", 0, "use_regex", 1);
    char *text = json_dumps(all, 0);
    if (!text || tokenizer_parse(&bytes, text, strlen(text), config, sizeof config - 1, &e) != OK) abort();
    free(text);
    json_decref(all);
    for (int i = 0; i < STYLES; i++) {
        chat_template *t = NULL;
        if (templates[i] && template_open(&t, templates[i], strlen(templates[i]), &e) != OK) abort();
        styles[i] = (chat_style){t, "deepseek_v32", answer_format_find(templates[i], "deepseek_v32"), bytes};
    }
    return 0;
}

static void check(const chat_prompt *p, const json_t *messages, bool own_ids) {
    str text = {0};
    size_t users = 0;
    tokenizer_decode(bytes, p->ids, p->count, false, &text);
    for (size_t i = 0; i < p->count; i++) users += p->ids[i] == 256;
    if (!own_ids && users > json_array_size(messages)) abort();
    if (text.n && (strstr(text.p, TOK_MARK) || strstr(text.p, TOK_PLACE)) && !own_ids) abort();
    str_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    if (n < 2) return 0;
    const char *json = (const char *)p + 1;
    size_t size = strnlen(json, n - 1);
    json_t *messages = NULL, *options = NULL;
    error e = {0};
    chat_prompt prompt;
    if (json_parse(&messages, json, size, "messages", &e) != OK) return 0;
    if (size + 1 < n - 1 && json_parse(&options, json + size + 1, n - size - 2, "options", &e) != OK) options = NULL;
    if (!json_is_object(options)) {
        json_decref(options);
        options = json_object();
    }
    char *written = json_dumps(messages, JSON_ENSURE_ASCII | JSON_ENCODE_ANY);
    bool own_ids = written && strstr(written, "token_ids");
    free(written);
    if (chat_add_tokens(options, bytes, &e) != OK) abort();
    if (chat_encode(&prompt, &styles[p[0] % STYLES], messages, options, &e) == OK) check(&prompt, messages, own_ids);
    else if (prompt.ids || !e.text[0]) abort();
    free(prompt.ids);
    json_decref(messages);
    json_decref(options);
    return 0;
}
