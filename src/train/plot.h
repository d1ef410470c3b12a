/* The curves of metrics.jsonl, for those who draw them elsewhere than on a page of their own (metrics_plot). */
#ifndef HADAL_TRAIN_PLOT_H
#define HADAL_TRAIN_PLOT_H

#include <stdbool.h>
#include "base/str.h"

typedef struct history history;

status history_open(history **out, const char *folder, error *e); /* no file, or no step in it: ERR_FORMAT */
void history_close(history *h);                                   /* accepts NULL */

/* The first and last value of a column ("reward", "loss", "validation_accuracy" ...); false: it has none. What was
 * measured before the first step counts as the first value of the validation's columns. */
bool history_ends(const history *h, const char *column, double *first, double *last);
double history_steps(const history *h); /* done */

/* Adds an <svg class='panel'> without colors of its own for text and axes (classes: title, unit, tick, legend, grid,
 * axis, raw, line) for everything that a reader of a report wants to see. */
void history_panels(const history *h, str *out);

#endif
