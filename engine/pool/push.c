/* SPDX-License-Identifier: MIT
 *
 * Messages from the caller to workers' rings.
 */
#include "pool/push.h"

#include <limits.h>

#include "base/abi.h"
#include "plat/plat.h"
#include "pool/announce.h"
#include "pool/collect.h"
#include "pool/dispatch.h"
#include "pool/pending.h"
#include "pool/wake.h"
#include "start/start.h"
#include "state/pool.h"
#include "tercio.h"

static int may_push(const tercio_run *run)
{
    const tercio_pool *pool = run->pool;
    if (pool->ending != TERCIO__OPEN)
        return TERCIO_ECLOSED;
    if (run->stopped)
        return TERCIO_ECANCELED;
    return pool->failure;
}

int tercio_push(tercio_run *run, const tercio_message *message, bool wait_in_pool)
{
    int result = tercio__run_check(run);
    if (result)
        return result;
    if (tercio__message_check(message) || message->n_parts == 0 || message->n_items == 0 || run->ended)
        return TERCIO_EINVAL;
    tercio_pool *pool = run->pool;
    tercio__worker *wake = NULL;

    tercio__lock(pool);
    bool exceeds = message->size > offsetof(tercio_message, exceeds) && message->exceeds, full = false;
    run->holds = wait_in_pool;
    result = may_push(run);
    if (result == 0 && wait_in_pool && !exceeds && !tercio__may_hold(pool)) {
        tercio__pump(pool); /* some may be done */
        result = may_push(run);
        full = !tercio__may_hold(pool);
    }
    if (result == 0 && !full && !(wait_in_pool && pool->pending)) {
        result = tercio__dispatch(run, message, &wake);
        if (result == 0) {
            tercio__pump(pool);
            result = may_push(run);
            if (result == 0)
                result = tercio__dispatch(run, message, &wake);
        }
    }
    bool may_wait = wait_in_pool ? !full : tercio__may_queue(run, message->n_items);
    if (result == 0 && may_wait && (result = tercio__defer(run, message)) == 0)
        result = 1;
    bool attended = message->size > offsetof(tercio_message, attended) && message->attended;
    bool more = message->size > offsetof(tercio_message, more) && message->more;
    if (more && wake && tercio__wake_later(run, wake, message->n_items))
        wake = NULL;
    else if (!more)
        tercio__wake_owed(pool);
    if ((run->options.notify && !attended) || run->bell_public || pool->pending)
        tercio__arm_supervisor(pool, false);
    if (run->timeout_ns && result == 1)
        tercio__bell_ring(pool->supervisor_bell); /* it sets its timer */
    if (wake && !pool->starter->processes) {
        tercio__wake(wake); /* its channel goes when the thread does, and that needs the lock */
        wake = NULL;
    }
    tercio__unlock(pool);
    if (wake)
        tercio__wake(wake);
    return result;
}

enum { PUSHES = 1024 }; /* messages under one lock */

/* Workers that sleep are woken as soon as they have a message (or later), the others are looked at once, at the end. */
int tercio__push_all(tercio_run *run, bool (*next)(void *user, tercio_message *), void (*taken)(void *user), void *user,
                     uint64_t *landed)
{
    int result = tercio__run_check(run), n = 0;
    if (result)
        return result;
    tercio_pool *pool = run->pool;
    tercio__worker *worker = NULL;
    tercio_message message = {.size = sizeof message, .more = true};

    tercio__lock(pool);
    result = may_push(run);
    for (bool pumped = false; result == 0 && n < PUSHES && next(user, &message);) {
        result = tercio__dispatch(run, &message, &worker);
        if (result == 1) {
            taken(user);
            n++;
            if (!tercio__wake_later(run, worker, message.n_items) && tercio__is_asleep(worker))
                tercio__wake(worker);
            result = 0;
        } else if (result == 0 && !pumped) {
            tercio__pump(pool);
            pumped = true;
            result = may_push(run);
        } else if (result == 0 && tercio__may_queue(run, message.n_items)) {
            result = tercio__defer(run, &message);
            if (result == 0) {
                taken(user);
                n++;
            }
        } else {
            break;
        }
    }
    for (unsigned i = 0; i < pool->n_workers && n; i++)
        if (pool->workers[i].sender.map.words && !pool->workers[i].owed)
            tercio__wake(&pool->workers[i]);
    if (n && pool->pending)
        tercio__arm_supervisor(pool, false);
    if (n && run->timeout_ns)
        tercio__bell_ring(pool->supervisor_bell); /* it sets its timer */
    *landed = run->landing.seen = run->landing.n;
    tercio__unlock(pool);
    return result < 0 ? result : n;
}

int tercio_run_room(tercio_run *run)
{
    int result = tercio__run_check(run);
    if (result)
        return result;
    tercio__lock(run->pool);
    if (!tercio__has_room(run))
        result = 0;
    else if (run->options.max_active == 0 || run->n_active == 0 || run->options.max_active - run->n_active > INT_MAX)
        result = INT_MAX;
    else
        result = (int)(run->options.max_active - run->n_active);
    tercio__unlock(run->pool);
    return result;
}
