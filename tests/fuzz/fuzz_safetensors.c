/* libFuzzer target: any bytes as a safetensors file. What is accepted must be readable to its last byte.
 * clang -fsanitize=fuzzer,address,undefined -Isrc tests/fuzz/fuzz_safetensors.c ... -ljansson */
#include <stdlib.h>
#include <string.h>
#include "format/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    safetensors s;
    error e = {0};
    status st = safetensors_parse(&s, p, n, "fuzz", &e);
    if (st != OK) {
        if (e.code != st || !e.text[0]) abort(); /* an error without its sentence */
        return 0;
    }
    uint64_t bytes = 0;
    unsigned sum = 0;
    for (size_t i = 0; i < s.count; i++) {
        size_t size = (size_t)tensor_count(&s.entries[i].t) * dtype_size(s.entries[i].t.type);
        const uint8_t *data = s.entries[i].t.data;
        for (size_t k = 0; k < size; k++) sum += data[k];
        bytes += size;
    }
    for (const char **m = s.meta; *m; m++) sum += (unsigned)strlen(*m);
    if (bytes > n || sum == 0xffffffffu) abort();
    safetensors_close(&s);
    return 0;
}
