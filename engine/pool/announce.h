/* SPDX-License-Identifier: MIT
 *
 * A caller or the supervisor announces in shared memory that it is about to sleep, and for what; workers ring it then. After
 * the announcement it looks once more, so that no answer comes between the look and the sleep.
 */
#ifndef TERCIO_POOL_ANNOUNCE_H
#define TERCIO_POOL_ANNOUNCE_H

#include <stdbool.h>

#include "tercio.h"

/* True when a ring holds something unread. Without the lock. */
bool tercio__has_news(const tercio_pool *);
/* Lets workers ring the supervisor where no caller will look after queued work. */
void tercio__arm_supervisor(tercio_pool *, bool always);
/* B1 for callers: what the workers shall ring for. */
void tercio__announce(tercio_pool *pool);
/* A look after the announcement: anything that a worker may have said without seeing it. */
bool tercio__news_after_announcing(const tercio_pool *pool);

#endif
