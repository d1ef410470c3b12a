/* Event files as TensorBoard reads them: scalars of training steps.
 *
 * A file is a list of records (TensorFlow's TFRecord): uint64 length, uint32 masked CRC-32C of the length, the bytes,
 * uint32 masked CRC-32C of the bytes; little endian. Each record is an Event message (tensorflow/core/util/event.proto)
 * in the wire format of Protocol Buffers. */
#ifndef HADAL_TRAIN_TENSORBOARD_H
#define HADAL_TRAIN_TENSORBOARD_H

#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

typedef struct event_file event_file;

/* A new events.out.tfevents.* in the folder; those of earlier runs stay. first_step > 0: the run goes on there, and
 * TensorBoard forgets what earlier files say about this step and later ones. */
status event_file_open(event_file **out, const char *folder, int64_t first_step, error *e);

/* Gathers a value of the present step; what is not finite is left out. The tag needs to live until the call ends. */
void event_file_add(event_file *t, const char *tag, double value);
/* Writes the gathered values as one event. After a failure the file holds whole records only. */
status event_file_write(event_file *t, int64_t step, error *e);

void event_file_close(event_file *t); /* accepts NULL */

/* CRC-32C (Castagnoli; RFC 3720, B.4), and the same as a record holds it: rotated by 15 bits, plus a constant. */
uint32_t event_crc32c(const void *p, size_t n);
uint32_t event_crc32c_masked(const void *p, size_t n);

#endif
