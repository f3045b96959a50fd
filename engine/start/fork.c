/* SPDX-License-Identifier: MIT
 *
 * fork: a worker is a copy of this process as it is now.
 *
 * Between fork and the worker's loop the child runs, in this order, and nothing else:
 *
 *     owned_drop                             closes what pools have for themselves
 *     die_with_parent, signals_enter         system calls
 *     tercio__forget_output                  what the parent has buffered is the parent's to write
 *     host->after_fork(in_child)             the host's own repairs (an interpreter's, say)
 *     tercio__worker_process                 maps its channel; from there on it is a worker like any other
 *
 * All signals are blocked until the worker has its own handlers; the host's repairs run with the worker's mask. The
 * child takes no lock of the engine here, since a thread that the child doesn't have may have held the pool's lock at
 * the fork. The parent's mappings of channels and arenas are not inherited; the child maps its own channel anew.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/forks.h"
#include "memory/views.h"
#include "plat/plat.h"
#include "start/lasting.h"
#include "start/methods.h"
#include "start/start.h"
#include "state/pool.h"
#include "tercio.h"
#include "worker/worker.h"

static _Noreturn void enter_child(tercio__worker *worker, int parent, bool lasting)
{
    tercio_pool *pool = worker->pool;
    int file = tercio__file_fd(pool->file);
    tercio__at("child: forked");
    const int keep[] = {file, pool->caller_bell, pool->supervisor_bell, lasting ? -1 : pool->lifeline[0]};
    tercio__owned_drop(keep, sizeof keep / sizeof *keep); /* first: a lifeline's writing end would keep it whole */
    for (size_t i = 0; i < 3; i++) /* the worker's now: a copy of the pool that is closed here leaves them open */
        (void)tercio__owned_copy(keep[i]);
    if (tercio__die_with_parent(parent, lasting, lasting ? -1 : pool->lifeline[0]))
        _exit(0);
    tercio__signals_enter(pool->blocked, tercio__interrupt_signal());
    tercio__forget_output();
    if (pool->host->after_fork)
        pool->host->after_fork(pool->host_user, true);
    tercio__worker_process(file, pool->caller_bell, pool->supervisor_bell, worker->index, pool->host, pool->host_user,
                           parent, lasting, -1, NULL, 0);
}

static int start(tercio__worker *worker, tercio__started *made)
{
    tercio_pool *pool = worker->pool;
    sigset_t all, old;
    bool lasting = tercio__lasting_thread(pool);
    int parent = (int)getpid(), result = 0;

    if (pool->host->before_fork)
        pool->host->before_fork(pool->host_user);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    tercio__owned_fork(true);
    pid_t pid = fork();
    if (pid == 0)
        enter_child(worker, parent, lasting);
    int saved_errno = errno;
    tercio__owned_fork(false);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (pool->host->after_fork)
        pool->host->after_fork(pool->host_user, false);
    errno = saved_errno;
    if (pid < 0)
        return TERCIO_ESYSTEM;
    tercio__at("start: forked");
    made->pid = (int)pid;
    made->handle = tercio__process_handle(made->pid);
    if (made->handle < 0) {
        result = made->handle;
        tercio__process_end(made->pid); /* it stands at the gate */
    }
    return result;
}

static int reap(tercio__worker *worker, tercio__exit *how)
{
    return tercio__process_reap(worker->handle, worker->pid, how);
}

const tercio__starter tercio__fork_starter = {
    .processes = true, .children_are_ours = true, .copies_process = true, .start = start, .reap = reap};
