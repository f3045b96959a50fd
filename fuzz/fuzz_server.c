/* SPDX-License-Identifier: MIT
 *
 * Both ends of the forkserver's protocol, fed with messages of any bytes and any descriptors. All descriptors are
 * closed in the end. Nothing is forked: a start is refused by the system here.
 */
#include <dirent.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#define fork() ((pid_t)-1)
#include "start/server.c"
#undef fork
#include "start/forkserver.c"

enum { WORKERS = 3 };

static size_t count_descriptors(void)
{
    size_t n = 0;
    DIR *folder = opendir("/proc/self/fd");
    if (folder == NULL)
        abort();
    while (readdir(folder))
        n++;
    closedir(folder);
    return n;
}

/* Sends one message of those in the input: how many descriptors, the kind, then what else is in it. */
static bool send_one(int socket, const uint8_t **data, size_t *size)
{
    tercio__server_message message = {0};
    int fds[] = {0, 1, 2, 0};
    if (*size < 3)
        return false;
    size_t n_fds = (*data)[0] % 5, bytes = (*data)[1] & 0x80 ? (*data)[1] % 100 : sizeof message;
    size_t known = *size - 2 < sizeof message ? *size - 2 : sizeof message;
    unsigned char raw[100] = {0};
    memcpy(&message, *data + 2, known);
    if ((*data)[0] & 0x80) /* numbers that fit, or nothing else would be looked at */
        message.kind = message.kind % 8, message.index %= WORKERS + 1;
    memcpy(raw, &message, sizeof message);
    *data += 2 + known;
    *size -= 2 + known;
    return tercio__send(socket, raw, bytes ? bytes : 1, fds, n_fds) > 0;
}

static void feed_server(const uint8_t *data, size_t size)
{
    static const tercio_host nobody = {.size = sizeof nobody};
    int parent[2], pool[2];
    server s = {.host = &nobody, .set = tercio__set_create()};
    if (s.set < 0 || tercio__pair(parent) || tercio__pair(pool))
        abort();
    s.socket = parent[1];
    tercio__server_message attach = {.kind = TERCIO__SERVER_ATTACH};
    if (tercio__send(parent[0], &attach, sizeof attach, &pool[1], 1) <= 0 || !hear_parent(&s) || s.clients == NULL)
        abort();
    close(pool[1]);
    while (s.clients && send_one(pool[0], &data, &size))
        hear_client(&s, s.clients);
    while (s.clients)
        close_client(&s, s.clients);
    close(s.set);
    close(parent[0]);
    close(parent[1]);
    close(pool[0]);
}

static void feed_pool(const uint8_t *data, size_t size)
{
    int pair[2], handle;
    tercio__server_message message;
    tercio__worker workers[WORKERS] = {{.handle = -1}, {.handle = -1}, {.handle = -1}};
    tercio_pool pool = {.n_workers = WORKERS, .workers = workers, .set = tercio__set_create()};
    connection *c = calloc(1, sizeof *c + WORKERS * sizeof c->ends[0]);
    if (c == NULL || pool.set < 0 || tercio__pair(pair))
        abort();
    c->socket = pair[1];
    pool.starter_data = c;
    while (!c->gone && send_one(pair[0], &data, &size))
        if (read_one(&pool, false, &message, &handle) && handle >= 0)
            close(handle);
    close(pair[0]);
    close(pair[1]);
    close(pool.set);
    free(c);
}

/* One byte: which end. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    size_t before = count_descriptors();
    if (data[0] & 1)
        feed_server(data + 1, size - 1);
    else
        feed_pool(data + 1, size - 1);
    if (count_descriptors() != before)
        abort();
    return 0;
}
