/* SPDX-License-Identifier: MIT
 *
 * The kernel may be asked to end a process together with the thread that started it. This tells whether the calling
 * thread lasts as long as the pool: the main thread does, and so does the supervisor.
 */
#include "start/lasting.h"

#include <pthread.h>

#include "plat/plat.h"
#include "state/pool.h"
#include "tercio.h"

bool tercio__lasting_thread(tercio_pool *pool)
{
    if (tercio__is_main_thread())
        return true;
    tercio__lock(pool);
    bool is_supervisor =
        pool->supervisor_state != TERCIO__SUPERVISOR_NONE && pthread_equal(pthread_self(), pool->supervisor);
    tercio__unlock(pool);
    return is_supervisor;
}
