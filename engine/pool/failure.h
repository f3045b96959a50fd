/* SPDX-License-Identifier: MIT
 *
 * Failures of the pool itself: what its callers get from then on, and the report that tercio_failure hands out.
 */
#ifndef TERCIO_POOL_FAILURE_H
#define TERCIO_POOL_FAILURE_H

#include "state/result.h"
#include "tercio.h"

/* What is under way is about to be dropped: it must not look like an end of the runs. */
void tercio__runs_lose(tercio_pool *, int error);
void tercio__pool_fail(tercio_pool *, int error, const tercio__entry *, const tercio_block *, const void *out,
                       const char *message);

#endif
