/* SPDX-License-Identifier: MIT */
#ifndef TERCIO_POOL_INBOX_H
#define TERCIO_POOL_INBOX_H

#include <stdbool.h>

#include "state/result.h"
#include "tercio.h"

/* Copies an entry to the end, with its blocks, bytes and message. Returns 0 or TERCIO_ENOMEM. */
int tercio__inbox_add(tercio__inbox *, const tercio__entry *, const tercio_block *blocks, const void *out,
                      const char *message);
/* The next entry, its bytes in place; false: none. */
bool tercio__inbox_take(tercio__inbox *, tercio_result *);
void tercio__inbox_release(tercio__inbox *, tercio_result *);
/* Hands every unread entry to `drop` (may be NULL) and frees all but pages that still have entries out. */
void tercio__inbox_clear(tercio__inbox *, void (*drop)(void *user, tercio_result *), void *user);
/* ... and those, too: nobody will look at what is out any more. */
void tercio__inbox_end(tercio__inbox *);

#endif
