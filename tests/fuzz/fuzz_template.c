/* libFuzzer target: any bytes as a chat template, rendered with a conversation that has something of everything. The
 * template may be refused; a rendering must end, and free what it took.
 * clang -fsanitize=fuzzer,address,undefined -Isrc tests/fuzz/fuzz_template.c ... -ljansson */
#include <stdlib.h>
#include <string.h>
#include "text/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static const char conversation[] =
    "{\"messages\": [{\"role\": \"system\", \"content\": \" Be terse.\\n\"}, {\"role\": \"user\", \"content\": "
    "\"\xE6\x9D\xAD 2+2?\"},"
    " {\"role\": \"assistant\", \"content\": null, \"reasoning_content\": \"r\", \"tool_calls\": [{\"id\": \"c\", "
    "\"type\": "
    "\"function\", \"function\": {\"name\": \"f\", \"arguments\": {\"a\": [1, 2.5, true, null, \"x\"]}}}]},"
    " {\"role\": \"tool\", \"content\": \"4\"}, {\"role\": \"assistant\", \"content\": \"<think>t</think>4\"}],"
    " \"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": {\"type\": \"object\"}}}],"
    " \"add_generation_prompt\": true, \"bos_token\": \"<s>\", \"eos_token\": \"</s>\", \"n\": 3, \"l\": [3, 1, 2], "
    "\"now\": 0}";

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    chat_template *t;
    error e = {0};
    str out = {0};
    json_t *v;
    if (template_open(&t, (const char *)p, n, &e) != OK) {
        if (t || !strlen(e.text)) abort();
        return 0;
    }
    if (json_parse(&v, conversation, sizeof conversation - 1, "conversation", &e) != OK) abort();
    if (template_render(t, v, &out, &e) != OK && (out.n || !strlen(e.text))) abort();
    json_decref(v);
    template_close(t);
    str_free(&out);
    return 0;
}
