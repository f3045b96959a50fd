/* SPDX-License-Identifier: MIT
 *
 * spawn: a worker is a fresh process image, of this program or of the command that the host names. It inherits three
 * descriptors: the pool's memory and the two bells that it rings. If the thread that starts it may end before the
 * process does, the worker inherits the lifeline too.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "memory/views.h"
#include "plat/plat.h"
#include "start/command.h"
#include "start/lasting.h"
#include "start/methods.h"
#include "start/start.h"
#include "state/pool.h"
#include "tercio.h"

/* The descriptors that the worker inherits, in memory that the caller frees: three, the lifeline or -1, then the host's;
 * with room for one more. */
static int *inherited(const tercio_pool *pool, int line)
{
    int *keep = malloc((5 + pool->n_descriptors) * sizeof *keep);
    if (keep == NULL)
        return NULL;
    keep[0] = tercio__file_fd(pool->file);
    keep[1] = pool->caller_bell;
    keep[2] = pool->supervisor_bell;
    keep[3] = line;
    for (size_t i = 0; i < pool->n_descriptors; i++)
        keep[4 + i] = pool->descriptors[i];
    return keep;
}

/* What the worker is to know, in memory that the caller frees. */
static char *new_argument(const tercio__worker *worker, const int *keep, bool lasting)
{
    const tercio_pool *pool = worker->pool;
    size_t size = 128 + 12 * pool->n_descriptors;
    char *argument = malloc(size);
    if (argument == NULL)
        return NULL;
    int at = snprintf(argument, size, TERCIO__WORKER_ARGUMENT "%d,%d,%d,%u,%d,%d,%d", keep[0], keep[1], keep[2],
                      worker->index, (int)getpid(), lasting, keep[3]);
    for (size_t i = 0; i < pool->n_descriptors; i++)
        at += snprintf(argument + at, size - (size_t)at, ",%d", pool->descriptors[i]);
    return argument;
}

static int start(tercio__worker *worker, tercio__started *made)
{
    tercio_pool *pool = worker->pool;
    bool lasting = tercio__lasting_thread(pool);
    int line = lasting ? -1 : pool->lifeline[0], pid = TERCIO_ENOMEM;
    int *keep = inherited(pool, line);
    tercio__command command = {.argument = keep ? new_argument(worker, keep, lasting) : NULL};
    if (command.argument == NULL)
        goto done;
    pid = tercio__command_make(&command, pool->options.worker_argv, pool->options.worker_pipe);
    if (pid)
        goto done;
    size_t n = 4 + pool->n_descriptors;
    if (line < 0) /* the last one takes its place; their order is the argument's */
        keep[3] = keep[--n];
    if (command.pipe >= 0)
        keep[n++] = command.pipe;
    /* Until the worker has its own handler, a Ctrl-C waits. */
    uint64_t blocked = pool->blocked | UINT64_C(1) << (SIGINT - 1);
    pid = tercio__spawn(command.argv, keep, n, blocked, false, &made->handle);
    tercio__command_clear(&command);
done:;
    int saved_errno = errno;
    free(command.argument);
    free(keep);
    errno = saved_errno;
    if (pid < 0)
        return pid;
    made->pid = pid;
    return 0;
}

static int reap(tercio__worker *worker, tercio__exit *how)
{
    return tercio__process_reap(worker->handle, worker->pid, how);
}

const tercio__starter tercio__spawn_starter = {
    .processes = true, .children_are_ours = true, .takes_descriptors = true, .start = start, .reap = reap};
