/* SPDX-License-Identifier: MIT
 *
 * A handle on a child where the kernel has no pidfd (before 5.3), or a sandbox refuses it: the end of a pipe, and a
 * thread that waits for that child alone, without collecting it. When the child ends the thread writes a byte, so the
 * end is readable, and stays so. (The child can't hold the pipe's other end itself: its own children would hold it
 * too, and a death would be heard when the last of them ends.)
 *
 * The thread takes no lock while it waits or ends, so a fork may happen at any of its instructions. The thread that
 * starts the next one, or counts threads, joins those that are done. In a forked child the list is of threads that it doesn't
 * have, and is forgotten.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../plat.h"
#include "linux.h"
#include "tercio.h"

enum { stack_bytes = 128 << 10 };

struct watcher {
    struct watcher *next;
    pthread_t thread;
    int pid, end;
    _Atomic bool done; /* nothing but its return is left of the thread */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct watcher *watchers;
static _Atomic int owner; /* the process whose threads they are */

static void *watch(void *data)
{
    struct watcher *mine = data;
    siginfo_t info;
    while (waitid(P_PID, (id_t)mine->pid, &info, WEXITED | WNOWAIT) && errno == EINTR)
        ;
    while (write(mine->end, "", 1) < 0 && errno == EINTR)
        ;
    close(mine->end);
    atomic_store(&mine->done, true);
    return NULL;
}

/* ... and that of `pid`, which is dead. Returns: how many are at work. Under the lock. */
static int join_those_that_are_done(int pid)
{
    int n = 0;
    for (struct watcher **at = &watchers; *at;) {
        struct watcher *each = *at;
        if (each->pid == pid || atomic_load(&each->done)) {
            pthread_join(each->thread, NULL);
            *at = each->next;
            free(each);
        } else {
            at = &each->next;
            n++;
        }
    }
    return n;
}

static void take_lock(void)
{
    int self = (int)getpid(), before = atomic_load(&owner);
    if (before != self) {
        if (before) { /* a forked child, which has one thread; another of its parent's may have held the lock */
            pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
            memcpy(&lock, &fresh, sizeof lock);
            watchers = NULL;
        }
        atomic_store(&owner, self);
    }
    pthread_mutex_lock(&lock);
}

int tercio__watchers(void)
{
    if (atomic_load(&owner) == 0)
        return 0; /* there was never one */
    take_lock();
    int n = join_those_that_are_done(0);
    pthread_mutex_unlock(&lock);
    return n;
}

void tercio__watch_end(int pid)
{
    if (atomic_load(&owner) == 0)
        return; /* there was never one */
    take_lock();
    (void)join_those_that_are_done(pid);
    pthread_mutex_unlock(&lock);
}

static int start_thread(struct watcher *new)
{
    pthread_attr_t attributes;
    sigset_t all, old;
    int error = pthread_attr_init(&attributes);
    if (error)
        return error;
    (void)pthread_attr_setstacksize(&attributes, stack_bytes);
    sigfillset(&all); /* signals are the application's threads' to take */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    error = pthread_create(&new->thread, &attributes, watch, new);
    if (error == EINVAL) /* a program with much thread-local memory needs a larger stack */
        error = pthread_create(&new->thread, NULL, watch, new);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attributes);
    return error;
}

int tercio__watch_child(int pid)
{
    siginfo_t info;
    int ends[2];
    if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT))
        return TERCIO_ESYSTEM; /* no child of ours */
    struct watcher *new = calloc(1, sizeof *new);
    if (new == NULL)
        return TERCIO_ENOMEM;
    if (pipe2(ends, O_CLOEXEC)) {
        free(new);
        return TERCIO_ESYSTEM;
    }
    new->pid = pid;
    new->end = ends[1];
    take_lock();
    (void)join_those_that_are_done(0);
    int error = start_thread(new);
    if (error == 0) {
        new->next = watchers;
        watchers = new;
    }
    pthread_mutex_unlock(&lock);
    if (error == 0)
        return ends[0];
    close(ends[0]);
    close(ends[1]);
    free(new);
    errno = error;
    return TERCIO_ESYSTEM;
}
