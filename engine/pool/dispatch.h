/* SPDX-License-Identifier: MIT */
#ifndef TERCIO_POOL_DISPATCH_H
#define TERCIO_POOL_DISPATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "state/message.h"
#include "tercio.h"

/* Hands a message to a worker that has room. Returns: 1; 0 no room; negative.
 * *wake is the worker that may have to be woken, once the lock is free. */
int tercio__dispatch(tercio_run *, const tercio_message *, tercio__worker **wake);
/* Hands out what is pending. Wakes workers itself. */
void tercio__dispatch_pending(tercio_pool *);
/* True when some worker could take a message of this run now. */
bool tercio__has_room(tercio_run *);
/* The run's next message may wait on pending, though the host didn't ask for that. */
bool tercio__may_queue(const tercio_run *, uint32_t n_items);

#endif
