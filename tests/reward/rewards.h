/* Rewards of texts in one line, and the rows of reference data. To be included first. */
#ifndef HADAL_TESTS_REWARDS_H
#define HADAL_TESTS_REWARDS_H

#include "../format/scratch.h"
#include <math.h>
#include "base/json.h"
#include "reward/reward.h"

static inline json_t *read_json(const char *text) {
    json_t *v;
    error e;
    if (json_parse(&v, text, strlen(text), "test", &e) != OK) fail_msg("%s", e.text);
    return v;
}

/* The set of a list as JSON text; the notes are counted in *notes (may be NULL). */
static inline void count_note(void *arg, const char *line) {
    assert_non_null(strchr(line, ':')); /* the reward's name stands before it */
    assert_null(strchr(line, '\n'));
    ++*(int *)arg;
}

static inline reward_set *open_rewards(const char *list, int *notes) {
    json_t *v = read_json(list);
    reward_set *s;
    error e;
    if (reward_set_open(&s, v, notes ? count_note : NULL, notes, &e) != OK) fail_msg("%s", e.text);
    json_decref(v);
    return s;
}

static inline reward_input completion(const char *text) {
    return (reward_input){.prompt = "", .completion = text, .finished = true, .max_tokens = 100};
}

static inline reward_input answered(const char *text, const char *answer) {
    reward_input in = completion(text);
    in.answer = answer;
    return in;
}

/* What the reward with these members gives: one("{\"name\":\"format\"}", in) */
static inline double one(const char *members, reward_input in) {
    char list[2048];
    double score, total;
    error e;
    snprintf(list, sizeof list, "[%s]", members);
    reward_set *s = open_rewards(list, NULL);
    assert_int_equal(reward_count(s), 1);
    if (reward_score(s, &in, 1, 1, &score, &total, &e) != OK) fail_msg("%s", e.text);
    reward_set_close(s);
    if (isnan(score)) assert_true(isnan(total));
    else assert_float_equal(score, total, 0);
    return score;
}

static inline void refuses(const char *list, const char *sentence) {
    json_t *v = read_json(list);
    reward_set *s = (reward_set *)1;
    error e = {0};
    assert_int_equal(reward_set_open(&s, v, NULL, NULL, &e), ERR_FORMAT);
    assert_null(s);
    assert_string_equal(e.text, sentence);
    json_decref(v);
}

/* An array of the rows of data/golden/NAME, JSON or JSON lines; NULL: there is no reference data. */
static inline json_t *golden(const char *name) {
    const char *shared = shared_folder();
    if (!shared) return NULL;
    char path[1024];
    snprintf(path, sizeof path, "%s/data/golden/%s", shared, name);
    str s = {0};
    error e;
    if (file_read(&s, path, 1 << 24, &e) != OK) fail_msg("%s", e.text);
    json_t *rows = s.p[0] == '[' ? read_json(s.p) : json_array();
    for (char *p = strtok(s.p, "\n"); s.p[0] != '[' && p; p = strtok(NULL, "\n"))
        json_array_append_new(rows, read_json(p));
    str_free(&s);
    return rows;
}

#endif
