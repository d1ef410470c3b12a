/* Errors: a code and one sentence. Whatever can fail returns a status and takes an error as its last argument. */
#ifndef HADAL_BASE_ERROR_H
#define HADAL_BASE_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

typedef enum status {
    OK = 0,
    ERR_NOMEM = -1,       /* memory is out */
    ERR_IO = -2,          /* the operating system refused: disk full, no permission to write, ... */
    ERR_FORMAT = -3,      /* a file is not there, or a file or text is not what it should be */
    ERR_ARG = -4,         /* the caller asked for something impossible */
    ERR_UNSUPPORTED = -5, /* well-formed, but this program does not do it */
    ERR_CANCELLED = -6,   /* a callback asked to stop */
    ERR_COMM = -7,        /* another rank failed or left: the first failure is the one to report */
    ERR_BUSY = -8         /* a queue is full */
} status;

typedef struct error { /* owned by the caller, usually on its stack; text is always terminated */
    status code;
    char text[512];
} error;

/* Writes the sentence into e (which may be NULL) and returns code. Control characters are written as '?', so
 * that a name out of a hostile file cannot reach the terminal. */
status fail(error *e, status code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts "context: " before the sentence that e holds already, and returns its code. */
status wrap(error *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define TRY(call)                \
    do {                         \
        status s_ = (call);      \
        if (s_ != OK) return s_; \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif
