/* libFuzzer target: any bytes as a run file. The parser gives a value or says where not; a run file is read or refused
 * with a sentence, and what is read writes a run file that reads back to the same text. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/yaml.h"
#include "train/config.h"
#include "train/config_table.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static void read_back(const train_config *c) {
    train_config again;
    str one = {0}, two = {0};
    error e = {0};
    arena *mem = arena_open(1 << 12);
    if (train_config_write(c, &one, &e) != OK || !mem) abort();
    if (config_parse(&again, one.p, one.n, "written", NULL, 0, mem, &e) != OK) {
        fprintf(stderr, "%s\n%s\n", e.text, one.p);
        abort();
    }
    if (train_config_write(&again, &two, &e) != OK || strcmp(one.p, two.p) != 0) abort();
    arena_close(mem);
    str_free(&one);
    str_free(&two);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    json_t *j, *lines;
    error e = {0};
    train_config c;
    if (yaml_parse(&j, &lines, (const char *)p, n, "fuzz", &e) != OK) {
        if (j || lines || strncmp(e.text, "fuzz:", 5) != 0) abort();
        return 0;
    }
    json_decref(j);
    json_decref(lines);
    arena *mem = arena_open(1 << 12);
    if (!mem) abort();
    if (config_parse(&c, (const char *)p, n, "fuzz", NULL, 0, mem, &e) == OK) read_back(&c);
    else if (!e.text[0]) abort();
    arena_close(mem);
    return 0;
}
