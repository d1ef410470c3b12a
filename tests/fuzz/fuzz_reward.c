/* libFuzzer target: any bytes as a completion and, behind the first 0, as the row's answer, through every reward that
 * runs no program. Scores are within -1 and 1, or none.
 * clang -fsanitize=fuzzer,address,undefined -Isrc tests/fuzz/fuzz_reward.c ... -ljansson -lpcre2-8 -lutf8proc */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "reward/reward.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static const char list[] =
    "[{\"name\":\"accuracy\"},{\"name\":\"accuracy\",\"from\":\"latex\",\"as\":\"b\"},{\"name\":\"accuracy\",\"from\":"
    "\"text\",\"as\":\"c\"},{\"name\":\"gsm8k\"},{\"name\":\"gsm8k\",\"method\":\"flexible\",\"as\":\"d\"},{\"name\":"
    "\"choice\"},{\"name\":\"format\"},{\"name\":\"code_format\"},{\"name\":\"tag_count\"},{\"name\":\"reasoning_"
    "steps\"},"
    "{\"name\":\"length\"},{\"name\":\"cosine\"},{\"name\":\"repetition\",\"n\":2},{\"name\":\"language\",\"target\":"
    "\"zh\"},{\"name\":\"countdown\"},{\"name\":\"tiny_r1\"}]";
enum { COUNT = 16 };

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    char *text = calloc(n + 2, 1);
    json_t *rewards, *row;
    reward_set *s;
    double scores[2 * COUNT], total[2];
    error e = {0};
    memcpy(text, p, n);
    if (json_parse(&rewards, list, sizeof list - 1, "list", &e) != OK) abort();
    row = json_pack("{s:i, s:[i, i], s:s}", "target", 7, "numbers", 3, 4, "prompt", "c7+8-3+5-9");
    if (!row || reward_set_open(&s, rewards, NULL, NULL, &e) != OK || reward_count(s) != COUNT) abort();
    reward_input in[2] = {{.prompt = "", .completion = text, .answer = text + strlen(text) + 1, .row = row},
                          {.prompt = text, .completion = text + strlen(text) + 1, .answer = "7", .row = row}};
    if (strlen(text) == n) in[0].answer = NULL, in[1].completion = "";
    if (reward_score(s, in, 2, 2, scores, total, &e) != OK) abort();
    for (int i = 0; i < 2 * COUNT; i++)
        if (!isnan(scores[i]) && fabs(scores[i]) > 1) abort();
    reward_set_close(s);
    json_decref(rewards);
    json_decref(row);
    free(text);
    return 0;
}
