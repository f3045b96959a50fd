/* SPDX-License-Identifier: MIT
 *
 * Decides which callers, and whether the host, are notified after answers arrive.
 */
#ifndef TERCIO_POOL_NOTIFY_H
#define TERCIO_POOL_NOTIFY_H

#include <stdbool.h>

#include "tercio.h"

void tercio__tell_callers(tercio_pool *);
/* A run has something to take, or nothing more will come. */
bool tercio__has_something(const tercio_run *);
/* Has the supervisor notify the host of what came for runs that no caller is looking after just now. */
void tercio__tell_host(tercio_pool *);
/* A run that the host looks after has results. */
bool tercio__host_has_news(const tercio_pool *);

#endif
