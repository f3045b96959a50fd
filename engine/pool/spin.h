/* SPDX-License-Identifier: MIT
 *
 * A caller looks for answers for a short while before it sleeps, without the lock.
 */
#ifndef TERCIO_POOL_SPIN_H
#define TERCIO_POOL_SPIN_H

#include <stdbool.h>
#include <stdint.h>

#include "tercio.h"

/* Returns when nobody looks at channels without the lock. The lock is free meanwhile. */
void tercio__stop_spinners(tercio_pool *);
/* Looks for news for a while: waking costs a hundred times what a short look does. How long follows how often it
 * was worth it; yielding lets the worker that we wait for have this CPU. Not under the lock. */
bool tercio__spin(tercio_pool *pool, uint64_t deadline);

#endif
