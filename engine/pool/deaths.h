/* SPDX-License-Identifier: MIT */
#ifndef TERCIO_POOL_DEATHS_H
#define TERCIO_POOL_DEATHS_H

#include <stdbool.h>

#include "plat/plat.h"
#include "state/message.h"
#include "tercio.h"

/* Before the first worker: what the kernel's counters say then. */
void tercio__note_memory_kills(tercio_pool *);
/* A worker's process or thread is gone. A thread that has not said goodbye may still run: what it may touch stays until it
 * ends. */
void tercio__worker_gone(tercio__worker *, const tercio__exit *);
/* Collects the worker if it is gone. Returns: true when it is. */
bool tercio__worker_reap(tercio__worker *);

#endif
