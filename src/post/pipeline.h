/* The stages of a recipe, one after the other, from one file: cold start, reinforcement learning, rejection sampling,
 * ... :
 *
 *   folder: runs/r1                     every stage has its folder in it, FOLDER/NN-NAME
 *   training: {precision: f32}          sections here are defaults of all stages
 *   stages:
 *     - {name: cold, kind: sft, model: {path: base}, data: {train: [cold.jsonl]}}
 *     - {name: rl, kind: grpo, model: {path: "@cold"}, ...}
 *
 * "@NAME", as a whole value or an entry of a list, stands for what an earlier stage made: the Hugging Face folder of a
 * training, the .jsonl of a sampling ("@@..." is a text that begins with @). A stage may have `defaults`, as run files
 * do. Overrides "section.key=value" go over all stages, "stages.NAME.section.key=value" over one, "folder=..." is the
 * folder.
 *
 * Stages that are done are skipped; a stage that was stopped goes on from its own checkpoints.
 * FOLDER/NN-NAME/stage.json, written when a stage is done, holds what it was done with: a configuration that differs is
 * an error. */
#ifndef HADAL_POST_PIPELINE_H
#define HADAL_POST_PIPELINE_H

#include "train/run.h"

enum { MOST_STAGES = 32 };

typedef enum stage_output { MAKES_MODEL, MAKES_DATA, MAKES_SCORES } stage_output;

typedef struct pipeline_kind { /* a list of them ends with name NULL */
    const char *name;
    stage_output makes; /* a folder hf, which is a link to hf-STEP; sample.output; checkpoint.folder/eval.json */
    status (*run)(const train_config *c, const run_hooks *hooks, run_result *out, error *e);
    status (*check)(const train_config *c,
                    error *e); /* before any stage begins, besides what all have; NULL: nothing */
} pipeline_kind;

typedef struct pipeline_stage {
    const char *name;
    const pipeline_kind *kind;
    const char *folder, *output; /* output: what "@name" stands for; scores: their file */
    train_config c;
    unsigned long uses; /* bit i: stage i's output */
    bool done;
} pipeline_stage;

typedef struct pipeline {
    const char *path, *folder; /* of the file; of the run */
    pipeline_stage stage[MOST_STAGES];
    int n;
    arena *mem; /* all texts */
} pipeline;

typedef struct pipeline_result {
    int done, of;           /* stages */
    int64_t steps;          /* of this call */
    double tokens, seconds; /* of this call */
    bool stopped;           /* by a hook: the same call goes on */
    const char *model;      /* the last that was made, NULL: none */
} pipeline_result;

/* Everything is read and checked: names, kinds, what uses what, keys, files that should be there, stages done before.
 */
status pipeline_open(pipeline **out, const char *path, const char *const *overrides, int n_overrides,
                     const pipeline_kind *kinds, error *e);
void pipeline_close(pipeline *p); /* accepts NULL */

/* Runs what is not done. hooks->note says which stage begins; FOLDER/report.html (report.h) is written after each. */
status pipeline_run(pipeline *p, const run_hooks *hooks, pipeline_result *out, error *e);

/* What pipeline_run would do, a JSON object for each stage: stage, name, kind, done, folder, model, data, steps,
 * output, and what a step is (rows and tokens, or prompts and completions). */
status pipeline_plan(const pipeline *p, json_t **out, error *e);

#endif
