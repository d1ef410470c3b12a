/* MD5 (RFC 1321): here only to say which prompts are held out, as the recipe of tiny-r1 does. No security in it. */
#ifndef HADAL_DATA_MD5_H
#define HADAL_DATA_MD5_H

#include <stddef.h>
#include <stdint.h>

void md5(const void *p, size_t n, uint8_t out[16]);

#endif
