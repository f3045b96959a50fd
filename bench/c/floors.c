/* SPDX-License-Identifier: MIT
 *
 * What this machine can do at best: what the other figures are to be held against. Prints JSON.
 *
 *     floors                    all of it
 *     floors futex IDLE N       a futex round trip between two processes: N of them, IDLE microseconds apart
 */
#include <errno.h>
#include <linux/futex.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double cpu_of(int who)
{
    struct rusage u;
    getrusage(who, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static void wait_for(_Atomic uint32_t *word, uint32_t value)
{
    uint32_t seen;
    while ((seen = atomic_load(word)) != value)
        syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0);
}

static void say(_Atomic uint32_t *word, uint32_t value)
{
    atomic_store(word, value);
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

typedef struct {
    double p50, p99, cpu;
} trip;

static trip futex_trip(unsigned idle, unsigned n)
{
    _Atomic uint32_t *words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    double *took = malloc(n * sizeof *took), before = cpu_of(RUSAGE_SELF) + cpu_of(RUSAGE_CHILDREN);
    if (words == MAP_FAILED || took == NULL)
        exit(1);
    pid_t child = fork();
    if (child == 0) {
        for (uint32_t i = 1; i <= n; i++) {
            wait_for(&words[0], i);
            say(&words[64], i);
        }
        _exit(0);
    }
    for (uint32_t i = 1; i <= n; i++) {
        if (idle != 0)
            usleep(idle);
        double start = now();
        say(&words[0], i);
        wait_for(&words[64], i);
        took[i - 1] = now() - start;
    }
    waitpid(child, NULL, 0);
    double used = cpu_of(RUSAGE_SELF) + cpu_of(RUSAGE_CHILDREN) - before;
    qsort(took, n, sizeof *took, by_value);
    trip t = {took[n / 2], took[n - 1 - n / 100], used / n};
    free(took);
    return t;
}

static double best(double (*once)(void *), void *argument, unsigned n)
{
    double took[64];
    for (unsigned i = 0; i < n; i++)
        took[i] = once(argument);
    qsort(took, n, sizeof *took, by_value);
    return took[n / 2];
}

static double fork_once(void *unused)
{
    (void)unused;
    double start = now();
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    waitpid(child, NULL, 0);
    return now() - start;
}

static double spawn_once(void *path)
{
    char *argv[] = {path, NULL};
    pid_t child;
    double start = now();
    if (posix_spawn(&child, path, NULL, NULL, argv, environ) != 0)
        exit(1);
    waitpid(child, NULL, 0);
    return now() - start;
}

enum { COPY = 64 << 20 };
typedef struct {
    char *from, *to;
} copies;

static double copy_once(void *argument)
{
    copies *c = argument;
    double start = now();
    memcpy(c->to, c->from, COPY);
    return now() - start;
}

static double fresh_once(void *argument)
{
    copies *c = argument;
    char *to = mmap(NULL, COPY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    double start = now();
    memcpy(to, c->from, COPY);
    double took = now() - start;
    munmap(to, COPY);
    return took;
}

static double spin_once(void *argument)
{
    double start = now();
    pid_t children[2];
    int n = *(int *)argument;
    for (int i = 0; i < n; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            for (volatile long k = 0; k < 50 * 1000 * 1000; k++) {}
            _exit(0);
        }
    }
    for (int i = 0; i < n; i++)
        waitpid(children[i], NULL, 0);
    return now() - start;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "futex") == 0) {
        trip t = futex_trip((unsigned)atoi(argv[2]), (unsigned)atoi(argv[3]));
        printf("{\"p50\": %.9f, \"p99\": %.9f, \"cpu\": %.9f}\n", t.p50, t.p99, t.cpu);
        return 0;
    }
    trip t = futex_trip(0, 2000), later = futex_trip(1000, 200);
    copies c = {malloc(COPY), malloc(COPY)};
    if (c.from == NULL || c.to == NULL)
        return 1;
    memset(c.from, 1, COPY);
    memset(c.to, 2, COPY);
    double warm = best(copy_once, &c, 9), fresh = best(fresh_once, &c, 9);
    double fork_small = best(fork_once, NULL, 25), spawn = best(spawn_once, "/bin/true", 15);
    int one = 1, two = 2;
    double alone = best(spin_once, &one, 3), together = best(spin_once, &two, 3);
    printf("{\"futex round trip\": %.9f, \"futex round trip after 1 ms\": %.9f, \"memcpy bytes/s\": %.0f, "
           "\"memcpy to fresh memory bytes/s\": %.0f, \"fork, exit, wait (parent of 128 MB)\": %.9f, "
           "\"posix_spawn of true\": %.9f, \"two bare processes, times one\": %.3f}\n",
           t.p50, later.p50, COPY / warm, COPY / fresh, fork_small, spawn, 2 * alone / together);
    return 0;
}
