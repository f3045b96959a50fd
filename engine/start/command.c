/* SPDX-License-Identifier: MIT
 *
 * The command line of fresh processes, both ends of it.
 */
#include "start/command.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/abi.h"
#include "base/forks.h"
#include "plat/plat.h"
#include "start/server.h"
#include "tercio.h"
#include "worker/worker.h"

enum { PIPE_MOST = 4096 }; /* what any pipe takes at once: PIPE_BUF, and its least capacity */

/* The bytes are in the pipe before anybody reads: nobody waits for this process, nor this process for anybody. */
static int fill_pipe(tercio__command *c, const tercio_bytes *around)
{
    char bytes[PIPE_MOST];
    int ends[2];
    const tercio_bytes pieces[] = {around[0], {c->argument, strlen(c->argument)}, around[1]};
    size_t size = 0;
    for (size_t i = 0; i < 3; size += pieces[i++].size) {
        if (pieces[i].size > sizeof bytes - size)
            return TERCIO_EINVAL;
        if (pieces[i].size)
            memcpy(bytes + size, pieces[i].data, pieces[i].size);
    }
    if (tercio__lifeline(ends))
        return TERCIO_ESYSTEM;
    c->generation = tercio__fork_generation();
    c->pipe = tercio__owned(ends[0]);
    ssize_t written = write(ends[1], bytes, size);
    int saved_errno = errno;
    close(ends[1]);
    errno = written < 0 ? saved_errno : EAGAIN;
    return written == (ssize_t)size ? 0 : TERCIO_ESYSTEM;
}

static int add_pipe(tercio__command *c, size_t n, const tercio_bytes *around)
{
    size_t size = strlen(c->argv[n - 1]) + 16;
    c->last = malloc(size);
    if (c->last == NULL)
        return TERCIO_ENOMEM;
    int error = fill_pipe(c, around);
    (void)snprintf(c->last, size, "%s%d", c->argv[n - 1], c->pipe);
    c->argv[n - 1] = c->last;
    return error;
}

int tercio__command_make(tercio__command *c, char *const *argv, const tercio_bytes *pipe)
{
    size_t n = 0;
    char *just_us[2] = {c->own, NULL};
    int error = 0;
    c->last = NULL;
    c->pipe = -1;
    if (argv == NULL) {
        if (tercio__own_executable(c->own, sizeof c->own))
            return TERCIO_ENOMEM;
        argv = just_us;
    }
    while (argv[n])
        n++;
    if (n == 0)
        return TERCIO_EINVAL;
    c->argv = malloc((n + 2) * sizeof *c->argv);
    if (c->argv == NULL)
        return TERCIO_ENOMEM;
    memcpy(c->argv, argv, n * sizeof *c->argv);
    c->argv[n] = pipe ? NULL : c->argument;
    c->argv[n + 1] = NULL;
    if (pipe)
        error = add_pipe(c, n, pipe);
    if (error)
        tercio__command_clear(c);
    return error;
}

void tercio__command_clear(tercio__command *c)
{
    int saved_errno = errno;
    if (c->pipe >= 0)
        tercio__owned_close(c->pipe, c->generation);
    free(c->last);
    free(c->argv);
    errno = saved_errno;
}

/* They had to outlive our own exec. Programs that a task starts have no business with them. */
static void keep_to_ourselves(const int *fds, size_t n)
{
    for (size_t i = 0; i < n; i++)
        (void)fcntl(fds[i], F_SETFD, FD_CLOEXEC);
}

/* The numbers at the end of a worker's argument, each behind a comma. Returns: NULL without memory. */
static int *read_list(const char *text, size_t *n)
{
    size_t room = 1;
    for (const char *at = text; *at; at++)
        room += *at == ',';
    int *list = calloc(room, sizeof *list);
    *n = 0;
    for (char *end; list && *text == ','; text = end)
        list[(*n)++] = (int)strtol(text + 1, &end, 10);
    return list;
}

int tercio_worker_main(const tercio_host *host, void *user, const char *argument)
{
    int file, caller, supervisor, parent, socket, lasting, line, end = 0;
    unsigned index;
    if (argument == NULL || tercio__host_check(host))
        return TERCIO_EINVAL;
    tercio__fork_watch();
    if (sscanf(argument, TERCIO__WORKER_ARGUMENT "%d,%d,%d,%u,%d,%d,%d%n", &file, &caller, &supervisor, &index, &parent,
               &lasting, &line, &end) == 7) {
        size_t n;
        int *list = read_list(argument + end, &n);
        if (list == NULL)
            return TERCIO_ENOMEM;
        keep_to_ourselves((const int[]){file, caller, supervisor}, 3);
        keep_to_ourselves(list, n);
        tercio__worker_process(file, caller, supervisor, index, host, user, parent, lasting, line, list, n);
    }
    if (sscanf(argument, TERCIO__SERVER_ARGUMENT "%d,%d,%d", &socket, &parent, &lasting) == 3) {
        keep_to_ourselves(&socket, 1);
        tercio__server_live(socket, parent, lasting, host, user);
    }
    return TERCIO_EINVAL;
}
