/* SPDX-License-Identifier: MIT */
#ifndef TERCIO_POOL_WAKE_H
#define TERCIO_POOL_WAKE_H

#include <stdbool.h>
#include <stdint.h>

#include "state/message.h"
#include "tercio.h"

/* What was published for it comes first. Under the lock, or where the worker's channel stays. */
void tercio__wake(const tercio__worker *);
/* Room in its up ring was given back: only if it waits for that. */
void tercio__wake_for_room(const tercio__worker *);
/* A hint: tercio__wake is sure. */
bool tercio__is_asleep(const tercio__worker *);
/* There are more workers than CPUs. False, too, where memory is short. */
bool tercio__is_crowded(tercio_pool *);
/* More messages follow at once, and one of n_items is so quick that its wake may be put off. */
bool tercio__may_wake_later(tercio_run *, uint32_t n_items);
/* ... the one for what `worker` has just got, until tercio__wake_owed. Returns: false when it may not, and
 * is the caller's to do. */
bool tercio__wake_later(tercio_run *, tercio__worker *, uint32_t n_items);
/* Of those that are kept awake the one whose turn it is, if it has done all that it had; NULL: it has not, or there is
 * none. take: and the next one's turn comes. */
const tercio__worker *tercio__next_hot(const tercio_pool *);
tercio__worker *tercio__take_hot(tercio_pool *);
/* Wakes all whose wake was put off. */
void tercio__wake_owed(tercio_pool *);
/* For the supervisor: wakes those whose wake was put off too long ago. Returns: when to look again; 0: need not. */
uint64_t tercio__check_owed(tercio_pool *);

#endif
