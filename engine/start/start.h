/* SPDX-License-Identifier: MIT
 *
 * How workers come into being: one table of functions, one room for each method. A started worker stands at the gate
 * of its channel until the parent holds a handle on it.
 */
#ifndef TERCIO_START_H
#define TERCIO_START_H

#include <limits.h>

#include "../internal.h"

/* What start made; start_worker writes it down under the lock. */
typedef struct {
    int pid, handle; /* 0, -1: a thread */
    pthread_t thread;
    bool thread_runs;
    void *data;
} tercio__started;

typedef struct tercio__starter {
    bool processes;
    /* Once, before the first worker; may be NULL. */
    int (*open)(tercio_pool *);
    /* Starts worker->index; its channel is ready. Not under the lock; one thread at a time (whoever opens the pool,
     * then the keeper). On error nothing is left. */
    int (*start)(tercio__worker *, tercio__started *);
    /* Tells how a worker ended. Never blocks, but for the last instructions of a thread. Returns: 0; TERCIO_EAGAIN
     * while it lives. */
    int (*collect)(tercio__worker *, tercio__exit *);
    /* The pool doesn't look at the worker's channel any more; NULL where channels are the pool's memory. */
    void (*release)(tercio__worker *);
    /* A descriptor of tercio_pool.starter_events is readable; may be NULL. */
    void (*event)(tercio_pool *);
    /* After the last worker; may be NULL. */
    void (*close)(tercio_pool *);
    /* The same in a child that was forked since; of a pool that isn't whole, nothing may be looked at that changes. */
    void (*forget)(tercio_pool *);
} tercio__starter;

extern const tercio__starter tercio__fork_starter, tercio__spawn_starter, tercio__forkserver_starter,
    tercio__threading_starter;

/* How workers and servers are told what they are: the argument added to their command. */
#define TERCIO__WORKER_ARGUMENT "--tercio-worker="
#define TERCIO__SERVER_ARGUMENT "--tercio-server="

/* A fresh process's command, and the pipe in which it finds its argument. */
typedef struct {
    char *argument; /* the caller's, set first */
    char **argv;
    char *last;          /* of argv, with the pipe's number; NULL: no pipe */
    int pipe;            /* to be inherited; -1: none */
    uint32_t generation; /* of the fork that the pipe belongs to */
    char own[PATH_MAX];
} tercio__command;

/* argv as in options.worker_argv (NULL: this program's own), pipe as in options.worker_pipe (NULL: none). On error
 * nothing is left. Returns: 0; TERCIO_ENOMEM, _ESYSTEM; TERCIO_EINVAL: too much for a pipe. */
int tercio__command_make(tercio__command *, char *const *argv, const tercio_bytes *pipe);
void tercio__command_clear(tercio__command *); /* errno stays */

/* server.c: a server's whole life. */
_Noreturn void tercio__server_live(int socket, int parent_pid, bool lasting, const tercio_host *, void *host_user);

/* Messages between a pool and its server, over a connection of the pool's own. */
enum {
    TERCIO__SERVER_ATTACH = 1,
    TERCIO__SERVER_START,
    TERCIO__SERVER_STARTED,
    TERCIO__SERVER_KILL, /* of a worker whose handle got lost on its way */
    TERCIO__SERVER_ENDED,
    TERCIO__SERVER_HAND_OVER, /* descriptors for the pool's workers; any number of these after ATTACH */
    TERCIO__SERVER_READY      /* on the server's own connection, where it stays unread */
};
typedef struct {
    uint32_t kind, index;
    int32_t pid, error;        /* errno; STARTED */
    int32_t code, signal;      /* ENDED */
    uint64_t blocked, ignored; /* START: the mask that workers keep, and what the parent ignores now */
    uint64_t peak_rss;
} tercio__server_message;

/* START */
typedef struct {
    tercio__server_message head;
    tercio__inherited inherited;
} tercio__server_start;

struct tercio_server {
    uint64_t rights; /* of the process when it started the server */
    int socket, handle, pid;
    uint32_t fork_generation;
};

#endif
