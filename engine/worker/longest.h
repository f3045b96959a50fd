/* SPDX-License-Identifier: MIT
 *
 * The items that took longest, as the worker writes them down: a short list in its channel, sorted, with a text for each.
 * The parent reads it at any time, also in the middle of a change. That is worth no lock: what is read is for people, and
 * right again at the next look.
 */
#ifndef TERCIO_WORKER_LONGEST_H
#define TERCIO_WORKER_LONGEST_H

#include <stdbool.h>
#include <stdint.h>

#include "tercio.h"

/* Returns whether the item is among the longest; that may have taken time, the host was asked about it. */
bool tercio__note_longest(tercio_call *, uint64_t index, uint64_t ns);

#endif
