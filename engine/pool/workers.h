/* SPDX-License-Identifier: MIT
 *
 * Starts workers, the first ones and those that take the place of others.
 */
#ifndef TERCIO_POOL_WORKERS_H
#define TERCIO_POOL_WORKERS_H

#include <stdbool.h>

#include "tercio.h"

/* Starts every worker that has none. Not under the lock. */
int tercio__start_missing(tercio_pool *);
bool tercio__wants_workers(const tercio_pool *pool);

#endif
