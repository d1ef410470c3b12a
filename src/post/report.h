/* What a pipeline did, as one page that needs nothing else: FOLDER/report.html. */
#ifndef HADAL_POST_REPORT_H
#define HADAL_POST_REPORT_H

#include "post/pipeline.h"

/* Stages, their curves (metrics.jsonl), what they wrote at first and at last (samples.jsonl), accuracies (eval.json).
 * What is not there, or damaged, is left out: a page is no reason to stop. */
status report_write(const pipeline *p, error *e);

#endif
