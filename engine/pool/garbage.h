/* SPDX-License-Identifier: MIT
 *
 * Messages and answers that nobody will read. Under threading the host made them of objects, which it has to drop; it is
 * called without the lock, so they are queued here until the lock is free.
 */
#ifndef TERCIO_POOL_GARBAGE_H
#define TERCIO_POOL_GARBAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tercio.h"

/* Under threading: a message that nobody will read. It is handed to host->drop once the lock is free. */
void tercio__garbage(tercio_pool *, const void *head, size_t size, uint32_t n_items, uint32_t skip, bool is_answer);
void tercio__drop_garbage(tercio_pool *); /* not under the lock */

#endif
