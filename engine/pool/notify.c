/* SPDX-License-Identifier: MIT
 *
 * Decides which callers, and whether the host, are notified after answers arrive.
 */
#include "pool/notify.h"

#include "plat/plat.h"
#include "pool/dispatch.h"
#include "pool/ring.h"
#include "state/pool.h"
#include "tercio.h"

bool tercio__has_something(const tercio_run *run)
{
    tercio__assert_locked(run->pool);
    return !tercio__inbox_empty(&run->incoming) || run->error || ((run->ended || run->stopped) && run->n_chunks == 0);
}

void tercio__tell_callers(tercio_pool *pool)
{
    tercio__assert_locked(pool);
    bool busy = pool->pending != NULL;
    for (tercio_run *run = pool->runs; run; run = run->next) {
        busy |= run->n_chunks > 0;
        if (run->waits && (tercio__has_something(run) || run->landing.n != run->landing.seen || run->wants_room))
            tercio__run_ring(run);
        else if (run->bell_public && (tercio__has_something(run) || (run->refused_bytes && tercio__has_room(run))))
            tercio__bell_ring(run->bell);
    }
    for (tercio__pool_waiter *waiter = pool->pool_waiters; waiter && !busy; waiter = waiter->next)
        tercio__bell_ring(waiter->waits_on); /* tercio_finish; this is another thread */
}

/* A caller that is inside takes them itself. */
static bool is_the_hosts(const tercio_run *run)
{
    return run->options.notify && run->news != NO_NEWS && !run->is_inside && !tercio__inbox_empty(&run->incoming);
}

bool tercio__host_has_news(const tercio_pool *pool)
{
    tercio__assert_locked(pool);
    for (const tercio_run *run = pool->runs; run; run = run->next)
        if (is_the_hosts(run))
            return true;
    return false;
}

void tercio__tell_host(tercio_pool *pool)
{
    tercio__assert_locked(pool);
    for (tercio_run *run = pool->runs; run; run = run->next)
        if (is_the_hosts(run) && run->news == NEWS) {
            run->news = NEWS_TOLD;
            tercio__bell_ring(pool->supervisor_bell);
        }
}
