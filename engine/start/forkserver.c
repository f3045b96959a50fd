/* SPDX-License-Identifier: MIT
 *
 * forkserver, the pool's end: a clean process (server.c), started like spawn, forks workers on request. Each pool has
 * its own connection to the server. The thread that starts workers reads the answers on it, and there is never more
 * than one such thread at a time.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/forks.h"
#include "memory/views.h"
#include "plat/plat.h"
#include "start/command.h"
#include "start/methods.h"
#include "start/server.h"
#include "start/start.h"
#include "state/pool.h"
#include "tercio.h"

/* ---- Servers -------------------------------------------------------------------------------------------------------- */

int tercio_server_open(tercio_server **out, char *const *argv)
{
    return tercio_server_open_piped(out, argv, NULL);
}

int tercio_server_open_piped(tercio_server **out, char *const *argv, const tercio_bytes *pipe)
{
    int pair[2], result;
    char argument[64];
    tercio__command command = {.argument = argument};
    *out = NULL;
    tercio_server *server = calloc(1, sizeof *server);
    if (server == NULL)
        return TERCIO_ENOMEM;
    result = tercio__pair(pair);
    if (result)
        goto no_pair;
    tercio__fork_watch();
    server->fork_generation = tercio__fork_generation();
    server->rights = tercio__rights();
    server->socket = tercio__owned(pair[0]);
    (void)tercio__owned(pair[1]);
    (void)snprintf(argument, sizeof argument, TERCIO__SERVER_ARGUMENT "%d,%d,%d", pair[1], (int)getpid(),
                   tercio__is_main_thread());
    result = tercio__command_make(&command, argv, pipe);
    if (result)
        goto no_command;
    int keep[] = {pair[1], command.pipe};
    /* What is ignored there is the program's own doing: what the parent ignores comes with each worker. */
    uint64_t blocked = tercio__signals_blocked() | UINT64_C(1) << (SIGINT - 1);
    result = tercio__spawn(command.argv, keep, command.pipe < 0 ? 1 : 2, blocked, true, &server->handle);
    tercio__command_clear(&command);
    if (result < 0)
        goto no_command;
    server->pid = result;
    server->handle = tercio__owned(server->handle);
    tercio__owned_close(pair[1], server->fork_generation);
    *out = server;
    return 0;
no_command:;
    int saved_errno = errno;
    tercio__owned_close(pair[0], server->fork_generation);
    tercio__owned_close(pair[1], server->fork_generation);
    errno = saved_errno;
no_pair:
    free(server);
    return result;
}

int tercio_server_fits(tercio_server *server)
{
    if (server == NULL || server->fork_generation != tercio__fork_generation())
        return 0;
    return server->rights == tercio__rights();
}

int tercio_server_pid(tercio_server *server)
{
    return server ? server->pid : 0;
}

void tercio_server_close(tercio_server *server)
{
    tercio__exit how;
    if (server == NULL)
        return;
    tercio__owned_close(server->socket, server->fork_generation); /* it ends when nobody is connected any more */
    if (server->fork_generation == tercio__fork_generation()) {
        /* It runs nothing but its loop, or imports before that; neither is worth waiting for. */
        (void)tercio__process_signal(server->handle, server->pid, SIGKILL);
        while (tercio__process_reap(server->handle, server->pid, &how) == TERCIO_EAGAIN)
            (void)tercio__bells_wait(&server->handle, 1, 0, NULL);
    }
    tercio__owned_close(server->handle, server->fork_generation);
    free(server);
}

/* ---- A pool's connection ---------------------------------------------------------------------------------------------- */

typedef struct {
    tercio_server *own; /* NULL: borrowed */
    int socket;
    int handle; /* the server's, a copy: its end of the socket may be open in a process that was forked meanwhile */
    uint64_t rights; /* those of the server */
    bool gone;       /* the server is dead */
    struct {
        bool known;
        tercio__exit how;
    } ends[]; /* one a worker */
} connection;

static void close_connection(tercio_pool *pool)
{
    connection *c = pool->starter_data;
    if (c == NULL)
        return;
    tercio__owned_close(c->socket, pool->fork_generation);
    tercio__owned_close(c->handle, pool->fork_generation);
    tercio_server_close(c->own);
    free(c);
    pool->starter_data = NULL;
    pool->starter_events[0] = pool->starter_events[1] = -1;
}

/* Until the server has imported what it shall, which may take long. Its first message stays unread, so each pool finds it.
 * Nothing was asked for yet, so a signal can end this. Returns: 0; TERCIO_ESTART; TERCIO_EINTERRUPTED, with a mask alone. */
static int wait_until_ready(const tercio_server *server, const sigset_t *sigmask)
{
    const int both[] = {server->socket, server->handle};
    int result;
    do
        result = tercio__bells_wait(both, 2, 0, sigmask);
    while (result == TERCIO_EINTERRUPTED && sigmask == NULL);
    return result == TERCIO_EINTERRUPTED ? result : result < 0 ? TERCIO_ESTART : 0;
}

/* Returns: false when the server is gone. */
static bool hand_over(tercio_pool *pool, int socket)
{
    enum { step = 8 };
    tercio__server_message message = {.kind = TERCIO__SERVER_HAND_OVER};
    for (size_t i = 0; i < pool->n_descriptors; i += step) {
        size_t left = pool->n_descriptors - i;
        if (tercio__send(socket, &message, sizeof message, pool->descriptors + i, left < step ? left : step) <= 0)
            return false;
    }
    return true;
}

static int open_connection(tercio_pool *pool)
{
    int pair[2] = {-1, -1};
    tercio_server *server = pool->options.server;
    connection *c = calloc(1, sizeof *c + pool->n_workers * sizeof c->ends[0]);
    if (c == NULL)
        return TERCIO_ENOMEM;
    pool->starter_data = c;
    c->socket = c->handle = -1;
    int result = server ? 0 : tercio_server_open_piped(&c->own, pool->options.worker_argv, pool->options.worker_pipe);
    if (result)
        goto fail;
    server = server ? server : c->own;
    if (server->fork_generation != tercio__fork_generation()) {
        result = TERCIO_EFORKED;
        goto fail;
    }
    c->rights = server->rights;
    if (c->rights != tercio__rights()) {
        result = TERCIO_ERIGHTS;
        goto fail;
    }
    if ((result = wait_until_ready(server, pool->options.sigmask)) != 0)
        goto fail;
    c->handle = tercio__owned(fcntl(server->handle, F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
    result = c->handle < 0 ? TERCIO_ESYSTEM : tercio__pair(pair);
    if (result)
        goto fail;
    (void)tercio__owned(pair[0]);
    (void)tercio__owned(pair[1]);
    tercio__server_message attach = {.kind = TERCIO__SERVER_ATTACH};
    result = tercio__send(server->socket, &attach, sizeof attach, &pair[1], 1);
    if (result <= 0)
        goto gone;
    /* The server's own output leads where this process's led when the server was started. */
    int fds[] = {tercio__file_fd(pool->file), pool->caller_bell, pool->supervisor_bell, STDOUT_FILENO, STDERR_FILENO};
    bool speaks = fcntl(STDOUT_FILENO, F_GETFD) >= 0 && fcntl(STDERR_FILENO, F_GETFD) >= 0;
    result = tercio__send(pair[0], &attach, sizeof attach, fds, speaks ? 5 : 3);
    if (result <= 0 || !hand_over(pool, pair[0]))
        goto gone;
    tercio__owned_close(pair[1], pool->fork_generation);
    c->socket = pool->starter_events[0] = pair[0];
    pool->starter_events[1] = c->handle;
    return 0;
gone:
    result = TERCIO_ESTART;
    tercio__owned_close(pair[0], pool->fork_generation);
    tercio__owned_close(pair[1], pool->fork_generation);
fail:;
    int saved_errno = errno;
    close_connection(pool);
    errno = saved_errno;
    return result;
}

static void server_gone(tercio_pool *pool)
{
    connection *c = pool->starter_data;
    int saved_errno = errno;
    c->gone = true;
    tercio__set_remove(pool->set, c->socket);
    tercio__set_remove(pool->set, c->handle);
    /* Its children die with it; from now on their handles say so. */
    for (unsigned i = 0; i < pool->n_workers; i++)
        if (pool->workers[i].handle >= 0 && !c->ends[i].known)
            (void)tercio__set_add(pool->set, pool->workers[i].handle, i);
    errno = saved_errno;
}

/* As tercio__receive; the server's end of the socket, or its own, is 0. */
static int receive(const connection *c, tercio__server_message *message, int *handle, size_t *n_fds, bool block)
{
    const int both[] = {c->socket, c->handle};
    for (bool ended = false;;) {
        *n_fds = 1;
        int n = tercio__receive(c->socket, message, sizeof *message, handle, n_fds, false);
        if (n != TERCIO_EAGAIN || ended)
            return n == TERCIO_EAGAIN ? 0 : n;
        int heard = tercio__bells_wait(&c->handle, 1, 1, NULL);
        /* What it sent before is there by now. A handle that somebody closed tells nothing any more. */
        ended = heard == 1 || heard == TERCIO_ESYSTEM;
        if (!ended && !block)
            return TERCIO_EAGAIN;
        if (!ended)
            (void)tercio__bells_wait(both, 2, 0, NULL);
    }
}

/* Reads one message. Returns: false when there is none, or the server is gone. */
static bool read_one(tercio_pool *pool, bool block, tercio__server_message *message, int *handle)
{
    connection *c = pool->starter_data;
    size_t n_fds;
    *handle = -1;
    *message = (tercio__server_message){0};
    if (c->gone)
        return false;
    int n = receive(c, message, handle, &n_fds, block);
    if (n == TERCIO_EAGAIN)
        return false;
    bool handle_lost = n == TERCIO_ESYSTEM && errno == EMFILE;
    if (n != (int)sizeof *message && !handle_lost) {
        if (n_fds)
            close(*handle);
        *handle = -1;
        server_gone(pool);
        return false;
    }
    if (message->kind == TERCIO__SERVER_ENDED && message->index < pool->n_workers &&
        pool->workers[message->index].pid == message->pid) {
        c->ends[message->index].known = true;
        c->ends[message->index].how =
            (tercio__exit){.code = message->code, .signal = message->signal, .peak_rss = message->peak_rss};
    }
    return true;
}

/* A worker that nobody here has a handle of: the server ends it. Comes back once it is gone, as a failed start leaves
 * nothing. */
static void end_unwatched(tercio_pool *pool, uint32_t index, int32_t pid)
{
    connection *c = pool->starter_data;
    tercio__server_message message = {.kind = TERCIO__SERVER_KILL, .index = index, .pid = pid};
    int handle;
    if (tercio__send(c->socket, &message, sizeof message, NULL, 0) <= 0)
        return; /* the server is gone, and its workers with it */
    while (read_one(pool, true, &message, &handle)) {
        if (handle >= 0)
            close(handle);
        if (message.kind == TERCIO__SERVER_ENDED && message.index == index && message.pid == pid)
            return;
    }
}

static int start(tercio__worker *worker, tercio__started *made)
{
    tercio_pool *pool = worker->pool;
    connection *c = pool->starter_data;
    tercio__server_start ask = {.head = {.kind = TERCIO__SERVER_START, .index = worker->index}};
    tercio__server_message answer;
    ask.head.blocked = pool->blocked;
    ask.head.ignored = tercio__signals_ignored();
    int handle;
    if (c->rights != tercio__rights()) /* given up since: its workers would have more of them than we do */
        return TERCIO_ERIGHTS;
    tercio__inherited_read(&ask.inherited);
    if (c->gone || tercio__send(c->socket, &ask, sizeof ask, NULL, 0) <= 0)
        return TERCIO_ESTART;
    c->ends[worker->index].known = false;
    while (read_one(pool, true, &answer, &handle)) {
        if (answer.kind != TERCIO__SERVER_STARTED || answer.index != worker->index) {
            if (handle >= 0)
                close(handle);
            continue;
        }
        if (answer.error || handle < 0) {
            if (handle >= 0)
                close(handle);
            if (answer.error == 0)
                end_unwatched(pool, answer.index, answer.pid);
            errno = answer.error ? answer.error : EMFILE;
            return TERCIO_ESYSTEM;
        }
        made->pid = answer.pid;
        made->handle = handle;
        return 0;
    }
    return TERCIO_ESTART;
}

static void event(tercio_pool *pool)
{
    tercio__server_message message;
    int handle;
    while (read_one(pool, false, &message, &handle))
        if (handle >= 0) /* nobody has asked for one */
            close(handle);
}

static int reap(tercio__worker *worker, tercio__exit *how)
{
    connection *c = worker->pool->starter_data;
    if (c->ends[worker->index].known) {
        *how = c->ends[worker->index].how;
        return 0;
    }
    if (!c->gone)
        return TERCIO_EAGAIN; /* the server will tell, once it has reaped it */
    if (tercio__bells_wait(&worker->handle, 1, 1, NULL) != 1)
        return TERCIO_EAGAIN;
    *how = (tercio__exit){.code = -1};
    return 0;
}

const tercio__starter tercio__forkserver_starter = {.processes = true,
                                                    .takes_descriptors = true,
                                                    .open = open_connection,
                                                    .start = start,
                                                    .reap = reap,
                                                    .event = event,
                                                    .close = close_connection,
                                                    .forget = close_connection};
