/* libFuzzer target: any bytes as config.json or as an index. The getters of base/json.h are asked for members of every
 * type.
 * clang -fsanitize=fuzzer,address,undefined -Isrc tests/fuzz/fuzz_json.c ... -ljansson */
#include <stdlib.h>
#include <string.h>
#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static void ask(const json_t *o, int depth) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)o, key, v) {
        error e = {0};
        int64_t i;
        double r;
        bool b;
        const char *s;
        if (json_get_int(o, key, 1, -1000, 1000, &i, &e) == OK && (i < -1000 || i > 1000)) abort();
        if (json_get_real(o, key, 0, &r, &e) == OK && !(r - r == 0)) abort();
        if (json_get_bool(o, key, false, &b, &e) == OK && b && !json_is_true(v)) abort();
        if (json_get_string(o, key, NULL, &s, &e) == OK && s && !json_is_string(v)) abort();
        if (json_is_object(v) && depth < 8) ask(v, depth + 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    json_t *root;
    error e = {0};
    if (json_parse(&root, (const char *)p, n, "fuzz", &e) != OK) {
        if (root || !e.text[0]) abort();
        return 0;
    }
    ask(root, 0);
    json_decref(root);
    return 0;
}
