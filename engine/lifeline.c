/* SPDX-License-Identifier: MIT
 *
 * The writing ends of all lifelines of this process (plat.h says what one is). A worker that is forked while another
 * pool has one inherits that end too, and would keep it whole: two such pools could keep each other's workers alive
 * when the parent is gone. So a forked worker closes all of them, its own pool's and the others'.
 */
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"

static pthread_mutex_t lock =
    PTHREAD_MUTEX_INITIALIZER; /* held across a worker's fork, so the child has a whole list */
static uint32_t generation;    /* of the process whose list it is */
static int *lines;
static size_t n_lines, room;

/* A fork of the application's may have come while another thread had the lock: the child begins anew. Its copies of the
 * ends stay open, which docs/concurrency.md says. */
static void begin_here(void)
{
    if (generation == tercio__fork_generation())
        return;
    pthread_mutex_init(&lock, NULL);
    generation = tercio__fork_generation();
    n_lines = 0;
}

int tercio__lifeline_open(int ends[2])
{
    begin_here();
    int error = tercio__lifeline(ends);
    if (error)
        return error;
    pthread_mutex_lock(&lock);
    if (n_lines == room) {
        int *more = realloc(lines, (room * 2 + 4) * sizeof *lines);
        if (more == NULL)
            error = TERCIO_ENOMEM;
        else {
            lines = more;
            room = room * 2 + 4;
        }
    }
    if (error == 0)
        lines[n_lines++] = ends[1];
    pthread_mutex_unlock(&lock);
    if (error) {
        close(ends[0]);
        close(ends[1]);
        ends[0] = ends[1] = -1;
    }
    return error;
}

void tercio__lifeline_close(int ends[2])
{
    if (ends[1] < 0)
        return;
    begin_here();
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < n_lines; i++)
        if (lines[i] == ends[1]) {
            lines[i] = lines[--n_lines];
            break;
        }
    close(ends[1]); /* under the lock: the number is nobody else's before it is off the list */
    pthread_mutex_unlock(&lock);
    close(ends[0]);
    ends[0] = ends[1] = -1;
}

void tercio__lifelines_hold(void)
{
    begin_here();
    pthread_mutex_lock(&lock);
}

void tercio__lifelines_let_go(bool in_child)
{
    if (!in_child) {
        pthread_mutex_unlock(&lock);
        return;
    }
    for (size_t i = 0; i < n_lines; i++)
        close(lines[i]);
    n_lines = 0;
    pthread_mutex_init(&lock, NULL);
    generation = tercio__fork_generation();
}
