/* Rows of prompts for rollouts: what is asked, and what the right answer is. Told by their members, in this order:
 *   asked    "messages" (up to the last user's), "prompt" (a list of messages, or a text), "question", "problem",
 * "input" answer   "reward_model.ground_truth" (verl), "ground_truth", "expected_answer", "answer", "solution",
 * "target"; of a text with "#### " (GSM8K) what follows the last one Rows are an endless list, as a data set's
 * (dataset.h): row i is a pure function of the files, the seed and i. */
#ifndef HADAL_DATA_PROMPTS_H
#define HADAL_DATA_PROMPTS_H

#include <jansson.h>
#include "data/dataset.h"

typedef enum prompt_form { PROMPT_AUTO, PROMPT_CHAT, PROMPT_RAW } prompt_form;

typedef enum prompt_thinking { THINKING_AUTO, THINKING_ON, THINKING_OFF } prompt_thinking;

typedef struct prompt_options {
    const data_options *data; /* paths, shuffle, seed, tokenizer, model_type, chat_template, note, progress */
    prompt_form form;   /* auto: a text named "prompt" stands as it is (special tokens in it are recognised), everything
                           else goes through the chat template, if there is one */
    const char *system; /* a message before all others, NULL: none */
    prompt_thinking thinking; /* the template's switch; auto: as the row or the template says */
    const char *begin;        /* what the answer begins with, NULL: nothing */
    int64_t most;             /* tokens: longer prompts are left out, with a note */
} prompt_options;

typedef struct prompt {
    const json_t *row;
    const json_t *messages; /* what was rendered; NULL: the prompt stands as it is */
    const char *text;       /* as the model reads it, `begin` included */
    const char
        *begun; /* the end of text that belongs to the answer: `begin`, or a <think> that the template wrote; "" */
    const char *answer; /* NULL: the row has none */
    const int32_t *ids;
    int64_t n;
} prompt;

typedef struct prompts prompts;

/* Empty data, or data of which every row is too long, are ERR_FORMAT. */
status prompts_open(prompts **out, const prompt_options *o, error *e);
void prompts_close(prompts *p); /* accepts NULL */
int64_t prompts_count(const prompts *p);
const prompt *prompts_get(const prompts *p, int64_t i); /* endless; lives as long as p */

#endif
