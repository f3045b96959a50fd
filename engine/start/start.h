/* SPDX-License-Identifier: MIT
 *
 * How workers come into being: one table of functions, one room for each method. A started worker stands at the gate
 * of its channel until the parent holds a handle on it.
 */
#ifndef TERCIO_START_H
#define TERCIO_START_H

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
} tercio__starter;

extern const tercio__starter tercio__fork_starter, tercio__spawn_starter, tercio__forkserver_starter,
    tercio__threading_starter;

/* How workers and servers are told what they are: the argument added to their command. */
#define TERCIO__WORKER_ARGUMENT "--tercio-worker="
#define TERCIO__SERVER_ARGUMENT "--tercio-server="

/* argv of options.worker_argv, or this program's own, with `argument` at its end. Ownership: free() the array alone. */
char **tercio__command(char *const *argv, char *argument, char *own, size_t own_size);

/* server.c: a server's whole life. */
_Noreturn void tercio__server_live(int socket, int parent_pid, bool lasting, const tercio_host *, void *host_user);

/* Messages between a pool and its server, over a connection of the pool's own. */
enum {
    TERCIO__SERVER_ATTACH = 1,
    TERCIO__SERVER_START,
    TERCIO__SERVER_STARTED,
    TERCIO__SERVER_KILL, /* of a worker whose handle got lost on its way */
    TERCIO__SERVER_ENDED,
    TERCIO__SERVER_READY /* on the server's own connection, where it stays unread */
};
typedef struct {
    uint32_t kind, index;
    int32_t pid, error;        /* errno; STARTED */
    int32_t code, signal;      /* ENDED */
    uint64_t blocked, ignored; /* START: the mask that workers keep, and what the parent ignores now */
    uint64_t peak_rss;
} tercio__server_message;

struct tercio_server {
    int socket, handle, pid;
    uint32_t fork_generation;
};

#endif
