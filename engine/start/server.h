/* SPDX-License-Identifier: MIT */
#ifndef TERCIO_START_SERVER_H
#define TERCIO_START_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "plat/plat.h"
#include "tercio.h"

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
