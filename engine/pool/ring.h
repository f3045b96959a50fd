/* SPDX-License-Identifier: MIT
 *
 * Rings the callers that are asleep: those of one run, all of the pool, or those that wait for room.
 */
#ifndef TERCIO_POOL_RING_H
#define TERCIO_POOL_RING_H

#include "tercio.h"

/* Rings whoever waits for this run. */
void tercio__run_ring(tercio_run *);
/* Rings all who wait in the pool. */
void tercio__ring_all(tercio_pool *);
/* A message that was held is answered: rings the callers of tercio_wait_room. */
void tercio__ring_for_room(tercio_pool *);

#endif
