/* SPDX-License-Identifier: MIT
 *
 * The supervisor: a thread of each pool that sleeps until a worker dies, a deadline passes, or work that no caller looks
 * after has to move. It has replacements started, and it calls host->notify. It never holds the pool's lock while it waits
 * or calls the host.
 */
#ifndef TERCIO_POOL_SUPERVISE_H
#define TERCIO_POOL_SUPERVISE_H

#include "tercio.h"

/* Before the first worker: if a later worker can't start, the ends of those that did are noticed here. */
int tercio__supervisor_watch(tercio_pool *);
int tercio__supervisor_start(tercio_pool *);
/* The supervisor does nothing any more, but its thread stays: workers that it forked end with it. */
void tercio__supervisor_park(tercio_pool *);
void tercio__supervisor_end(tercio_pool *);

#endif
