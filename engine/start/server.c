/* SPDX-License-Identifier: MIT
 *
 * forkserver, the server's end: a process with one thread, which forks workers for the pools that are connected to
 * it, reaps them, and reports how they ended. It runs no code of the user's except what was preloaded. It ends with
 * its parent, and its workers end with it.
 */
#include "start/server.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/forks.h"
#include "plat/plat.h"
#include "tercio.h"
#include "worker/worker.h"

typedef struct client {
    struct client *next;
    int socket;
    int file, caller_bell, supervisor_bell; /* -1 until the pool has sent them */
    int output, errors;                     /* the pool's; -1: as the server's */
    int *descriptors;                       /* the host's, for the pool's workers */
    size_t n_descriptors;
    unsigned n_children;
} client;

typedef struct child {
    struct child *next;
    client *client; /* NULL: its pool is gone */
    uint32_t index;
    int pid, handle;
} child;

typedef struct {
    int set, socket, parent;
    const tercio_host *host;
    void *host_user;
    client *clients;
    child *children;
} server;

/* Tokens of the set: addresses of clients and children, told apart by the lowest bit. */
enum { MAIN = 0, CHILD = 1 };

static void close_sent(const client *c)
{
    const int sent[] = {c->file, c->caller_bell, c->supervisor_bell, c->output, c->errors};
    for (size_t i = 0; i < sizeof sent / sizeof *sent; i++)
        if (sent[i] >= 0)
            close(sent[i]);
    for (size_t i = 0; i < c->n_descriptors; i++)
        close(c->descriptors[i]);
}

static void close_client(server *s, client *c)
{
    for (client **at = &s->clients; *at; at = &(*at)->next)
        if (*at == c) {
            *at = c->next;
            break;
        }
    for (child *each = s->children; each; each = each->next)
        if (each->client == c) {
            each->client = NULL;
            tercio__process_kill_group(each->pid); /* its pool is gone without it */
            (void)tercio__process_signal(each->handle, each->pid, SIGKILL);
        }
    tercio__set_remove(s->set, c->socket);
    close(c->socket);
    close_sent(c);
    free(c->descriptors);
    free(c);
}

static _Noreturn void enter_child(server *s, client *c, const tercio__server_start *ask, int parent)
{
    if (tercio__die_with_parent(parent, true, -1))
        _exit(0);
    tercio__owned_drop(NULL, 0);      /* of pools that a preloaded module has */
    tercio__join_group_of(s->parent); /* which may have moved since the server was started */
    tercio__signals_ignore(ask->head.ignored);
    tercio__signals_enter(ask->head.blocked, tercio__interrupt_signal());
    tercio__forget_output();
    close(s->set);
    close(s->socket);
    for (child *each = s->children; each; each = each->next)
        close(each->handle);
    for (client *each = s->clients; each; each = each->next) {
        close(each->socket);
        if (each != c)
            close_sent(each);
    }
    if (c->output >= 0) {
        (void)dup2(c->output, STDOUT_FILENO);
        (void)dup2(c->errors, STDERR_FILENO);
        if (c->output > STDERR_FILENO) /* where the server itself had none, they may have come as just these */
            close(c->output);
        if (c->errors > STDERR_FILENO)
            close(c->errors);
    }
    tercio__inherited_apply(&ask->inherited);
    if (s->host->after_fork)
        s->host->after_fork(s->host_user, true);
    tercio__worker_process(c->file, c->caller_bell, c->supervisor_bell, ask->head.index, s->host, s->host_user, parent,
                           true, -1, c->descriptors, c->n_descriptors);
}

static void start_child(server *s, client *c, const tercio__server_start *ask)
{
    uint32_t index = ask->head.index;
    tercio__server_message answer = {.kind = TERCIO__SERVER_STARTED, .index = index};
    int parent = (int)getpid();
    child *new = calloc(1, sizeof *new);
    if (new == NULL || c->file < 0) {
        answer.error = ENOMEM;
        (void)tercio__send(c->socket, &answer, sizeof answer, NULL, 0);
        free(new);
        return;
    }
    if (s->host->before_fork)
        s->host->before_fork(s->host_user);
    tercio__owned_fork(true);
    pid_t pid = fork();
    if (pid == 0)
        enter_child(s, c, ask, parent);
    answer.error = pid < 0 ? errno : 0;
    tercio__owned_fork(false);
    if (s->host->after_fork)
        s->host->after_fork(s->host_user, false);
    if (pid < 0) {
        (void)tercio__send(c->socket, &answer, sizeof answer, NULL, 0);
        free(new);
        return;
    }
    new->client = c;
    new->index = ask->head.index;
    new->pid = answer.pid = (int)pid;
    new->handle = tercio__process_handle((int)pid);
    if (new->handle < 0 || tercio__set_add(s->set, new->handle, (uint64_t)(uintptr_t) new | CHILD)) {
        answer.error = errno;          /* no descriptors left */
        tercio__process_end((int)pid); /* it stands at the gate */
        if (new->handle >= 0)
            close(new->handle);
        free(new);
        (void)tercio__send(c->socket, &answer, sizeof answer, NULL, 0);
        return;
    }
    new->next = s->children;
    s->children = new;
    c->n_children++;
    (void)tercio__send(c->socket, &answer, sizeof answer, &new->handle, 1);
}

static void end_child(server *s, child *gone)
{
    tercio__exit how;
    if (tercio__process_failed(gone->handle, gone->pid))
        tercio__process_kill_group(gone->pid); /* what it left, while its number is still its own */
    if (tercio__process_reap(gone->handle, gone->pid, &how))
        return;
    for (child **at = &s->children; *at; at = &(*at)->next)
        if (*at == gone) {
            *at = gone->next;
            break;
        }
    tercio__set_remove(s->set, gone->handle);
    close(gone->handle);
    if (gone->client) {
        tercio__server_message message = {.kind = TERCIO__SERVER_ENDED,
                                          .index = gone->index,
                                          .pid = gone->pid,
                                          .code = how.code,
                                          .signal = how.signal,
                                          .peak_rss = how.peak_rss};
        (void)tercio__send(gone->client->socket, &message, sizeof message, NULL, 0);
    }
    free(gone);
}

/* Its end is then told as any other's. */
static void kill_child(server *s, const client *c, const tercio__server_message *message)
{
    for (child *each = s->children; each; each = each->next)
        if (each->client == c && each->index == message->index && each->pid == message->pid)
            (void)tercio__process_signal(each->handle, each->pid, SIGKILL);
}

/* Returns: false without memory; the descriptors are closed then. */
static bool take_over(client *c, const int *fds, size_t n)
{
    int *longer = realloc(c->descriptors, (c->n_descriptors + n) * sizeof *longer);
    if (longer == NULL) {
        for (size_t i = 0; i < n; i++)
            close(fds[i]);
        return false;
    }
    c->descriptors = longer;
    memcpy(longer + c->n_descriptors, fds, n * sizeof *fds);
    c->n_descriptors += n;
    return true;
}

static void attach_client(client *c, const int fds[5])
{
    c->file = fds[0];
    c->caller_bell = fds[1];
    c->supervisor_bell = fds[2];
    c->output = fds[3];
    c->errors = fds[4];
}

static void hear_client(server *s, client *c)
{
    tercio__server_start message;
    int fds[8] = {-1, -1, -1, -1, -1, -1, -1, -1};
    size_t n_fds = sizeof fds / sizeof *fds;
    int n = tercio__receive(c->socket, &message, sizeof message, fds, &n_fds, false);
    if (n == TERCIO_EAGAIN)
        return;
    uint32_t kind = n >= (int)sizeof message.head ? message.head.kind : 0;
    bool whole = n == (int)(kind == TERCIO__SERVER_START ? sizeof message : sizeof message.head);
    if (whole && kind == TERCIO__SERVER_ATTACH && n_fds >= 3 && n_fds <= 5 && c->file < 0) {
        attach_client(c, fds);
        return;
    }
    if (whole && kind == TERCIO__SERVER_HAND_OVER && n_fds) {
        if (!take_over(c, fds, n_fds))
            close_client(s, c);
        return;
    }
    for (size_t i = 0; i < n_fds; i++) /* what came with a message that makes no sense */
        close(fds[i]);
    if (!whole)
        close_client(s, c);
    else if (kind == TERCIO__SERVER_START)
        start_child(s, c, &message);
    else if (kind == TERCIO__SERVER_KILL)
        kill_child(s, c, &message.head);
}

/* Returns: false when the parent is gone. */
static bool hear_parent(server *s)
{
    tercio__server_message message;
    int fd = -1;
    size_t n_fds = 1;
    int n = tercio__receive(s->socket, &message, sizeof message, &fd, &n_fds, false);
    if (n == TERCIO_EAGAIN || (n == TERCIO_ESYSTEM && errno == EMFILE))
        return true; /* a connection that there is no descriptor for ends, and its pool hears that */
    if (n != (int)sizeof message || n_fds != 1)
        return false; /* and all descriptors go with the process */
    client *c = calloc(1, sizeof *c);
    if (c == NULL) {
        close(fd);
        return true;
    }
    c->socket = fd;
    c->file = c->caller_bell = c->supervisor_bell = c->output = c->errors = -1;
    c->next = s->clients;
    s->clients = c;
    if (tercio__set_add(s->set, fd, (uint64_t)(uintptr_t)c))
        close_client(s, c);
    return true;
}

/* 0, 1 and 2 are taken, or what pools send would come as these, and a worker's output go over it. Returns: the socket,
 * which is none of them. */
static int keep_standard_free(int socket)
{
    int fd, moved = socket;
    if (socket <= STDERR_FILENO) {
        moved = fcntl(socket, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
        close(socket);
    }
    while ((fd = open("/dev/null", O_RDWR)) >= 0 && fd <= STDERR_FILENO)
        ;
    if (fd > STDERR_FILENO)
        close(fd);
    return moved;
}

_Noreturn void tercio__server_live(int socket, int parent_pid, bool lasting, const tercio_host *host, void *host_user)
{
    server s = {.socket = socket, .parent = parent_pid, .host = host, .host_user = host_user};
    uint64_t tokens[16];
    /* What is sent to the parent's whole group, or to each process of a job, is the parent's to decide on; the server
     * ends with it. */
    tercio__signals_block(UINT64_MAX);
    s.socket = keep_standard_free(socket);
    if (s.socket < 0)
        _exit(1);
    if (tercio__die_with_parent(parent_pid, lasting, -1) || tercio__parent_gone(parent_pid))
        _exit(0);
    s.set = tercio__set_create();
    if (s.set < 0 || tercio__set_add(s.set, s.socket, MAIN))
        _exit(1);
    tercio__server_message ready = {.kind = TERCIO__SERVER_READY};
    (void)tercio__send(s.socket, &ready, sizeof ready, NULL, 0);
    for (;;) {
        /* One token at a time: what it leads to may free what another one points to. */
        int n = tercio__set_wait(s.set, tokens, 1, 0);
        if (n < 0)
            continue;
        for (int i = 0; i < n; i++) {
            if (tokens[i] == MAIN) {
                if (!hear_parent(&s))
                    _exit(0);
            } else if (tokens[i] & CHILD) {
                end_child(&s, (child *)(uintptr_t)(tokens[i] & ~(uint64_t)CHILD));
            } else {
                hear_client(&s, (client *)(uintptr_t)tokens[i]);
            }
        }
    }
}
