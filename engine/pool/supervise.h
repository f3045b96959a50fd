/* SPDX-License-Identifier: MIT
 *
 * The supervisor: a thread of each pool that sleeps until a worker dies, a deadline passes, or work that no caller looks
 * after has to move. It has replacements started, and it calls host->notify. It never holds the pool's lock while it waits
 * or calls the host.
 */
#ifndef TERCIO_POOL_SUPERVISE_H
#define TERCIO_POOL_SUPERVISE_H

#include "tercio.h"

/* Before the first worker: who collects those that began, when another one couldn't, hears of their ends here. */
int tercio__keeper_listen(tercio_pool *);
int tercio__keeper_start(tercio_pool *);
/* The keeper does nothing any more, but its thread stays: workers that it forked end with it. */
void tercio__keeper_stop(tercio_pool *);
void tercio__keeper_end(tercio_pool *);

#endif
