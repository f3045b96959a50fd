/* SPDX-License-Identifier: MIT
 *
 * Messages from the caller to workers' rings.
 */
#ifndef TERCIO_POOL_PUSH_H
#define TERCIO_POOL_PUSH_H

#include <stdbool.h>
#include <stdint.h>

#include "tercio.h"

/* Hands in what `next` has (false: nothing more) until there is no room, under one lock. *landed: items that have landed
 * in all. Returns: how many messages were taken (their last one was not where `next` is asked again for it), or an error
 * as tercio_push. */
int tercio__push_all(tercio_run *, bool (*next)(void *user, tercio_message *), void (*taken)(void *user), void *user,
                     uint64_t *landed);

#endif
