/* SPDX-License-Identifier: MIT
 *
 * A worker that the kernel kills for want of memory, where a control group may be made, and one that is killed for
 * another reason: what a result says of both.
 */
#include "face_tasks.h"

#include <sys/mman.h>

#include "plat/linux/linux.h"
#include "plat/plat.h"

enum { LIMIT = 128 << 20 };
enum { HUNGRY, KILLED };

/* More than there is; and nobody who is killed waits for swapped pages. */
static int task_hungry(tercio_call *call, tercio_bytes in, void *out)
{
    (void)in, (void)out;
    for (size_t n = 0; n < (size_t)4 * LIMIT; n += 1 << 20) {
        char *more = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (more == MAP_FAILED)
            return tercio_fail(call, 1, "mmap: %s", strerror(errno));
        memset(more, 1, 1 << 20);
    }
    return tercio_fail(call, 2, "nobody minds");
}

static int task_killed(tercio_call *call, tercio_bytes in, void *out)
{
    (void)call, (void)in, (void)out;
    return raise(SIGKILL);
}

static const tercio_task tasks[] = {[HUNGRY] = {"hungry", task_hungry, 0}, [KILLED] = {"killed", task_killed, 0}};
static const tercio_table table = {
    .size = sizeof table, .task_size = sizeof(tercio_task), .n_tasks = 2, .tasks = tasks};

/* ---- A group of our own --------------------------------------------------------------------------------------------- */

static bool write_to(const char *folder, const char *name, const char *text)
{
    char path[PATH_MAX + 64];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0)
        close(fd);
    return done;
}

/* Returns: false where none can be made, or memory can't be limited there. */
static bool make_group(char made[PATH_MAX + 32])
{
    char folder[PATH_MAX], limit[32];
    size_t top;
    (void)snprintf(limit, sizeof limit, "%d", LIMIT);
    for (int v2 = 0; v2 < 2; v2++) {
        if (!tercio__cgroup_folder("memory", v2, folder, &top))
            continue;
        (void)snprintf(made, PATH_MAX + 32, "%s/tercio-%d", folder, (int)getpid());
        if (mkdir(made, 0700))
            continue;
        if (write_to(made, v2 ? "memory.max" : "memory.limit_in_bytes", limit)) {
            (void)write_to(made, v2 ? "memory.swap.max" : "memory.memsw.limit_in_bytes", v2 ? "0" : limit);
            return true;
        }
        rmdir(made);
    }
    return false;
}

/* ---- The program in it ------------------------------------------------------------------------------------------------ */

static bool said_of(tercio_pool *pool, unsigned task)
{
    tercio_result result = {.size = sizeof result};
    tercio_run *run;
    if (tercio_submit(pool, task, (tercio_bytes){0}, NULL, &run) || tercio_next(run, -1, &result) != 1 ||
        result.status != TERCIO_EDIED || result.signal != SIGKILL) {
        fprintf(stderr, "%s, signal %d: %s\n", tercio_error_name(result.status), result.signal, result.message);
        _exit(1);
    }
    bool said = result.out_of_memory;
    tercio_release(run, &result);
    tercio_run_close(run);
    return said;
}

/* Ends with the number of the first thing that isn't as it should be; 0: none. */
static int live_in(const char *group, tercio_method method)
{
    tercio_options options = {.size = sizeof options, .table = &table, .method = method, .n_workers = 1};
    tercio_pool *pool;
    uint64_t kills;
    if (!write_to(group, "cgroup.procs", "0"))
        return 2;
    if (tercio_open(&pool, &options))
        return 3;
    bool counted = tercio__memory_kills(&kills) == 0;
    if (said_of(pool, KILLED))
        return 4;
    if (said_of(pool, HUNGRY) != counted)
        return 5;
    if (said_of(pool, HUNGRY) != counted)
        return 6;
    if (said_of(pool, KILLED)) /* one kill fewer than workers that were killed: nobody can say which */
        return 7;
    tercio_close(pool);
    return 0;
}

static void what_is_said_of_a_killed_worker(void **state)
{
    skip_threads(state);
    char group[PATH_MAX + 32];
    int status;
    if (!make_group(group))
        skip();
    pid_t program = fork();
    if (program == 0)
        _exit(live_in(group, method_of(state)));
    assert_int_equal(waitpid(program, &status, 0), program);
    /* A group whose last process has just ended is busy for a moment. */
    while (rmdir(group) && errno == EBUSY)
        sched_yield();
    assert_int_equal(status, 0);
}

int main(int argc, char **argv)
{
    static const face_test tests[] = {FACE_TEST(what_is_said_of_a_killed_worker)};
    tercio_worker_entry(argc, argv, &table);
    return run_for_each_method("out_of_memory", tests, sizeof tests / sizeof *tests, argc > 1 ? argv[1] : NULL);
}
