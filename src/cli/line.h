/* Lines from a person: edited with readline and remembered, or plainly read when standard input is no terminal. */
#ifndef HADAL_CLI_LINE_H
#define HADAL_CLI_LINE_H

#include <stdbool.h>

typedef enum line_kind { LINE_TEXT, LINE_END, LINE_INTERRUPTED } line_kind;

typedef struct line_reader {
    bool edited;   /* with readline */
    char *history; /* its file; NULL: none */
} line_reader;

void line_open(line_reader *r);
void line_close(line_reader *r);
/* *text: without the newline, free() it; NULL unless LINE_TEXT. After LINE_INTERRUPTED the flag is clear again, and
 * *empty tells whether nothing had been typed. */
line_kind line_read(line_reader *r, const char *prompt, char **text, bool *empty);

#endif
