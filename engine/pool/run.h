/* SPDX-License-Identifier: MIT
 *
 * Runs: open, results out, close. Messages go in by push.c; the waiting itself is in wait.c.
 */
#ifndef TERCIO_POOL_RUN_H
#define TERCIO_POOL_RUN_H

#include "tercio.h"

int tercio__run_next(tercio_run *, double timeout, tercio_result *);
/* Detaches a run from its pool, which goes. */
void tercio__run_orphan(tercio_run *);

#endif
