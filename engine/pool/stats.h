/* SPDX-License-Identifier: MIT
 *
 * Counters and times of the workers, for people: tercio_get_stats, tercio_get_longest, tercio_worker_pids. A replacement
 * continues the counters of the worker before it.
 */
#ifndef TERCIO_POOL_STATS_H
#define TERCIO_POOL_STATS_H

#include "state/message.h"

/* Takes over what a worker's channel tells about its longest items. */
void tercio__keep_longest(tercio__worker *);

#endif
