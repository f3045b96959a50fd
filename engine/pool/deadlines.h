/* SPDX-License-Identifier: MIT
 *
 * Decides when a time limit has passed: of an item, of an init or exit function, of the end of a process, or of the
 * grace after an interruption. When one has passed, this code interrupts or kills the worker. The supervisor asks
 * here how long it may sleep.
 */
#ifndef TERCIO_POOL_DEADLINES_H
#define TERCIO_POOL_DEADLINES_H

#include <stdbool.h>
#include <stdint.h>

#include "tercio.h"

uint64_t tercio__check_deadlines(tercio_pool *pool, bool *hidden);
void tercio__time_phases(tercio_pool *pool);

#endif
