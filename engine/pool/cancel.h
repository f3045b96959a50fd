/* SPDX-License-Identifier: MIT
 *
 * Takes back what was handed in: one item (tercio_cancel), a run or all of the pool (tercio_abort), or a run that is closed.
 */
#ifndef TERCIO_POOL_CANCEL_H
#define TERCIO_POOL_CANCEL_H

#include "tercio.h"

/* Lets go of what is under way: what is queued is dropped, what runs ends with its item and nobody hears of it. */
void tercio__let_go(tercio_run *run);

#endif
