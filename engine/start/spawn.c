/* SPDX-License-Identifier: MIT
 *
 * spawn: a worker is a fresh image, of this program or of the command that the host names. It inherits three
 * descriptors: the pool's memory and the two bells that it rings; and the lifeline, where a thread starts it that may
 * end before its process.
 */
#include <stdio.h>
#include <unistd.h>

#include "start.h"

static int start(tercio__worker *worker, tercio__started *made)
{
    tercio_pool *pool = worker->pool;
    bool lasting = tercio__lasting_thread(pool);
    int line = lasting ? -1 : pool->lifeline[0];
    int keep[5] = {tercio__file_fd(pool->file), pool->caller_bell, pool->keeper_bell};
    size_t n_keep = 3;
    tercio__command command;
    (void)snprintf(command.argument, sizeof command.argument, TERCIO__WORKER_ARGUMENT "%d,%d,%d,%u,%d,%d,%d", keep[0],
                   keep[1], keep[2], worker->index, (int)getpid(), lasting, line);
    int error = tercio__command_make(&command, pool->options.worker_argv, pool->options.worker_pipe);
    if (error)
        return error;
    if (line >= 0)
        keep[n_keep++] = line;
    if (command.pipe >= 0)
        keep[n_keep++] = command.pipe;
    /* Until the worker has its own handler, a Ctrl-C waits. */
    uint64_t blocked = pool->blocked | UINT64_C(1) << (SIGINT - 1);
    int pid = tercio__spawn(command.argv, keep, n_keep, blocked, false, &made->handle);
    tercio__command_clear(&command);
    if (pid < 0)
        return pid;
    made->pid = pid;
    return 0;
}

static int collect(tercio__worker *worker, tercio__exit *how)
{
    return tercio__process_collect(worker->handle, worker->pid, how);
}

const tercio__starter tercio__spawn_starter = {.processes = true, .start = start, .collect = collect};
