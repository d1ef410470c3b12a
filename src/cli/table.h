/* JSON of the library as a person reads it: one "name  value" a line, nested objects indented, units by name. */
#ifndef HADAL_CLI_TABLE_H
#define HADAL_CLI_TABLE_H

#include "cli/cli.h"

void print_table(const json_t *object);
void print_row(const json_t *object); /* all on one line; long texts are cut */

#endif
