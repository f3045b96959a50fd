/* SPDX-License-Identifier: MIT
 *
 * Moves messages that were queued ahead of a loaded worker to one that has nothing. order.c says which of them may go.
 */
#ifndef TERCIO_POOL_BALANCE_H
#define TERCIO_POOL_BALANCE_H

#include <stdbool.h>

#include "tercio.h"

/* Moves work from a loaded worker's ring to one that has nothing. more_comes: not of runs whose input goes on. */
void tercio__balance(tercio_pool *, bool more_comes);

#endif
