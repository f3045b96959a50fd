/* SPDX-License-Identifier: MIT
 *
 * When a task's time is over, and what follows: limits of items, of init and exit functions, of the end of a process, and the
 * grace after an interruption. The supervisor asks here how long it may sleep.
 */
#ifndef TERCIO_POOL_DEADLINES_H
#define TERCIO_POOL_DEADLINES_H

#include <stdbool.h>
#include <stdint.h>

#include "tercio.h"

uint64_t tercio__check_deadlines(tercio_pool *pool, bool *hidden);
void tercio__time_phases(tercio_pool *pool);

#endif
