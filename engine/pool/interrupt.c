/* SPDX-License-Identifier: MIT
 *
 * Interrupts what a worker runs. The supervisor kills the worker when it goes on beyond the grace (deadlines.c).
 */
#include "pool/interrupt.h"

#include <stdatomic.h>

#include "base/fault.h"
#include "channel/channel.h"
#include "channel/layout.h"
#include "plat/plat.h"
#include "pool/wake.h"
#include "state/pool.h"
#include "tercio.h"
#include "worker/worker.h"

void tercio__interrupt_worker(tercio__worker *worker, uint64_t sequence)
{
    tercio__assert_locked(worker->pool);
    tercio_pool *pool = worker->pool;
    atomic_store_explicit(&worker->sender.map.words->cancel, sequence + 1, memory_order_release);
    tercio__at("interrupt: asked");
    if (worker->told_at && worker->told_sequence == sequence)
        return;
    worker->told_at = tercio__now();
    worker->told_sequence = sequence;
    if (worker->handle >= 0)
        (void)tercio__process_signal(worker->handle, worker->pid, tercio__interrupt_signal());
    tercio__wake(worker);
    tercio__bell_ring(pool->supervisor_bell); /* it sets its timer for the grace */
}

tercio__chunk *tercio__running_chunk(tercio__worker *worker, uint64_t *sequence)
{
    tercio__assert_locked(worker->pool);
    uint64_t passed = tercio__sender_passed(&worker->sender);
    if (passed >= worker->sender.tail || passed < worker->sender.reclaimed)
        return NULL;
    *sequence = passed;
    return &worker->inflight[passed % TERCIO__SLOTS];
}
