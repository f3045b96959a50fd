/* SPDX-License-Identifier: MIT
 *
 * Kills and stops at every labelled point of the engine, on both sides, one point a run: the same scene is played by
 * a fresh process each time, and its n-th passing of a point is the last thing that one process does, or what it does
 * when it is stopped for a moment. The books must balance, and nobody may be left.
 *
 * Needs an engine that was built with -Dfault_points=true.
 */
#include "battery.h"
#include "child.h"

#include <sys/prctl.h>

#include "base/fault.h"
#include "plat/plat.h"

#define STOPPED_RING "a stopped ring"

static tercio__faults *faults;

/* The file that a variable of the environment names. */
static void *map_file(const char *variable, size_t size)
{
    int fd = open(getenv(variable), O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(memory != MAP_FAILED);
    close(fd);
    return memory;
}

/* ---- The scene, in a process of its own --------------------------------------------------------------------------- */

enum { SMALL = 18, LARGE = 5, MOST_BYTES = 90000, MANY = 20, ANSWER_BYTES = 400 };
enum { ANSWER = N_TASKS, TELL, UNTIL_STRUCK, N_OWN_TASKS };

static int task_answer(tercio_call *call, tercio_bytes in, void *out)
{
    uint64_t index;
    (void)call;
    memcpy(&index, in.data, sizeof index);
    fill_pattern(out, ANSWER_BYTES, index);
    return 0;
}

static void tell(void)
{
    atomic_store(&the_ledger->told, 1);
    tercio__word_wake(&the_ledger->told);
}

static void wait_until_told(void)
{
    while (atomic_load(&the_ledger->told) == 0)
        tercio__word_wait(&the_ledger->told, 0, 0);
}

static int task_tell(tercio_call *call, tercio_bytes in, void *out)
{
    tell();
    return task_listen(call, in, out);
}

typedef struct {
    item *in;
    size_t at;
} item_source;

static int next_small(void *user, tercio_bytes *input)
{
    item_source *from = user;
    if (from->at == SMALL)
        return 0;
    *input = (tercio_bytes){&from->in[from->at++], sizeof *from->in};
    return 1;
}

/* Each item has one answer, is run once at most, and fails only if it was what a killed worker ran. */
static void maps(tercio_pool *pool, bool one_may_die)
{
    item_source from = {.in = items_of(SMALL, 0)};
    unsigned answers[SMALL] = {0}, failed = 0;
    /* A limit on time, so that items are timed; a lifespan, so that workers leave and are replaced. */
    tercio_map_options options = {
        .size = sizeof options, .chunk = 3, .timeout = 1000, .lifespan = 7, .unordered = true};
    tercio_result result = {.size = sizeof result};
    tercio_run *run;
    int more;
    CHECK(tercio_stream(pool, WORK, next_small, &from, &options, &run) == 0);
    while ((more = tercio_next(run, BOUND_SECONDS, &result)) == 1) {
        size_t i = (size_t)result.index;
        uint64_t out = 0;
        CHECK(i < SMALL && answers[i]++ == 0 && the_ledger->begun[i] <= 1);
        if (result.status == 0) {
            CHECK(result.out.size == sizeof out);
            memcpy(&out, result.out.data, sizeof out);
            CHECK(out == i * 3 + 1 && the_ledger->ended[i] == 1);
        } else {
            CHECK(result.status == TERCIO_EDIED && result.signal == SIGKILL);
            failed++;
        }
        tercio_release(run, &result);
    }
    CHECK(more == 0 && failed <= one_may_die);
    for (size_t i = 0; i < SMALL; i++)
        CHECK(answers[i] == 1);
    tercio_run_close(run);
    free(from.in);
}

typedef struct {
    unsigned char bytes[MOST_BYTES];
    size_t at;
} pattern_source;

static size_t pattern_size(size_t i)
{
    return MOST_BYTES / (i % 3 + 1);
}

static int next_pattern(void *user, tercio_bytes *input)
{
    pattern_source *from = user;
    if (from->at == LARGE)
        return 0;
    *input = (tercio_bytes){from->bytes, pattern_size(from->at)};
    fill_pattern(from->bytes, input->size, from->at++);
    return 1;
}

static void streams(tercio_pool *pool, bool one_may_die)
{
    static pattern_source from;
    tercio_map_options options = {.size = sizeof options, .chunk = 2, .retries = one_may_die};
    tercio_result result = {.size = sizeof result};
    tercio_run *run;
    from.at = 0;
    CHECK(tercio_stream(pool, PATTERN, next_pattern, &from, &options, &run) == 0);
    for (size_t i = 0; i < LARGE; i++) {
        CHECK(tercio_next(run, BOUND_SECONDS, &result) == 1);
        CHECK(result.status == 0 && result.index == i && result.out.size == pattern_size(i));
        CHECK(is_pattern(result.out.data, result.out.size, i + 1000));
        tercio_release(run, &result);
    }
    CHECK(tercio_next(run, BOUND_SECONDS, &result) == 0);
    tercio_run_close(run);
}

/* Answers that pass the end of a ring, and that come faster than they are read. */
static void answers(tercio_pool *pool, bool one_may_die)
{
    static uint64_t numbers[MANY];
    static unsigned char out[MANY][ANSWER_BYTES];
    tercio_map_options options = {.size = sizeof options, .chunk = MANY / 2, .retries = one_may_die};
    for (size_t i = 0; i < MANY; i++)
        numbers[i] = i;
    CHECK(tercio_map(pool, ANSWER, numbers, sizeof *numbers, MANY, out, &options, NULL) == 0);
    for (size_t i = 0; i < MANY; i++)
        CHECK(is_pattern(out[i], ANSWER_BYTES, i));
}

static void cancels(tercio_pool *pool, bool one_may_die)
{
    tercio_map_options options = {.size = sizeof options, .retries = one_may_die};
    tercio_result result = {.size = sizeof result};
    tercio_run *run;
    CHECK(tercio_submit(pool, TELL, (tercio_bytes){NULL, 0}, &options, &run) == 0);
    wait_until_told();
    CHECK(tercio_cancel(run, 0) == 0);
    CHECK(tercio_next(run, BOUND_SECONDS, &result) == 1);
    CHECK(result.status == TERCIO_ECANCELED || (one_may_die && result.status == TERCIO_EDIED));
    tercio_release(run, &result);
    tercio_run_close(run);
}

/* ---- A worker that is stopped just before it rings ---------------------------------------------------------------------- */

/* A task that ends when somebody has been struck. */
static int task_until_struck(tercio_call *call, tercio_bytes in, void *out)
{
    (void)call, (void)in;
    if (faults == NULL)
        faults = map_file("TERCIO_FAULTS", sizeof *faults);
    tell();
    while (atomic_load(&faults->state) == TERCIO__FAULT_ARMED)
        tercio__word_wait(&faults->state, TERCIO__FAULT_ARMED, 0);
    memset(out, 1, 8);
    return 0;
}

/* The battery's tasks and some more. */
static const tercio_table *own_table(void)
{
    static tercio_task all[N_OWN_TASKS];
    static tercio_table made;
    memcpy(all, tasks, sizeof tasks);
    all[ANSWER] = (tercio_task){"answer", task_answer, ANSWER_BYTES};
    all[TELL] = (tercio_task){"tell", task_tell, 0};
    all[UNTIL_STRUCK] = (tercio_task){"until struck", task_until_struck, 8};
    made = table;
    made.tasks = all;
    made.n_tasks = N_OWN_TASKS;
    return &made;
}

static void *work_until_struck(void *data)
{
    item one = {.index = 0};
    uint64_t out;
    while (atomic_load(&faults->state) == TERCIO__FAULT_ARMED)
        CHECK(tercio_map(data, WORK, &one, sizeof one, 1, &out, NULL, NULL) == 0);
    return NULL;
}

static void play_stopped_ring(tercio_pool *pool)
{
    tercio_result result = {.size = sizeof result};
    tercio_run *run;
    pthread_t other;
    CHECK(tercio_submit(pool, UNTIL_STRUCK, (tercio_bytes){NULL, 0}, NULL, &run) == 0);
    wait_until_told(); /* so that it is the other worker that is struck */
    CHECK(pthread_create(&other, NULL, work_until_struck, pool) == 0);
    strcpy(faults->label, "ring: owed");
    atomic_store(&faults->how, TERCIO__STRIKE_HOLD);
    CHECK(tercio_next(run, BOUND_SECONDS, &result) == 1 && result.status == 0);
    CHECK(atomic_load(&faults->state) == TERCIO__FAULT_STRUCK && atomic_load(&faults->released) == 0);
    atomic_store(&faults->released, 1);
    tercio__word_wake(&faults->released);
    pthread_join(other, NULL);
    tercio_release(run, &result);
    tercio_run_close(run);
}

/* ---- A play: a pool from beginning to end --------------------------------------------------------------------------- */

/* Points count from one of these on: a worker that is short-lived would hide those of its followers. */
enum { OPENS, MAPS, STREAMS, ANSWERS, CANCELS, FINISHES, N_ACTS };

static const char *const acts[N_ACTS] = {"opens", "maps", "streams", "answers", "cancels", "finishes"};

static void begins(const char *wanted, unsigned act)
{
    if (strcmp(wanted, acts[act]) == 0)
        atomic_store(&faults->parent, (int)getpid());
}

static int play(const char *method, const char *act)
{
    tercio_options options = {.size = sizeof options,
                              .table = own_table(),
                              .n_workers = 2,
                              .threads_at_fork = true,
                              .ring_bytes = 4096,
                              .arena_bytes = MOST_BYTES};
    tercio_pool *pool;
    uint32_t armed = TERCIO__FAULT_ARMED;
    bool dies = atomic_load(&faults->side) == TERCIO__WORKER_SIDE && atomic_load(&faults->how) == TERCIO__STRIKE_KILL;
    alarm(BOUND_SECONDS);
    CHECK(tercio_method_parse(method, &options.method) == 0);
    begins(act, OPENS);
    CHECK(tercio_open(&pool, &options) == 0);
    if (strcmp(act, STOPPED_RING) == 0) {
        atomic_store(&faults->parent, (int)getpid());
        play_stopped_ring(pool);
    } else {
        begins(act, MAPS);
        maps(pool, dies);
        begins(act, STREAMS);
        streams(pool, dies);
        begins(act, ANSWERS);
        answers(pool, dies);
        begins(act, CANCELS);
        cancels(pool, dies);
    }
    begins(act, FINISHES);
    CHECK(tercio_finish(pool, BOUND_SECONDS, NULL, NULL) == 0);
    tercio_close(pool);
    CHECK(waitpid(-1, NULL, 0) == -1 && errno == ECHILD);
    if (atomic_compare_exchange_strong(&faults->state, &armed, TERCIO__FAULT_OVER))
        tercio__word_wake(&faults->state);
    return 0;
}

/* ---- Who has it played --------------------------------------------------------------------------------------------- */

static pid_t begin_play(const char *method, const char *act)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        execl("/proc/self/exe", "fault_points", "--play", method, act, (char *)NULL);
        _exit(126);
    }
    return pid;
}

/* ---- Which points were met ------------------------------------------------------------------------------------------- */

enum { LABELS = 56, MOST_LABELS = 128 };

static char met[MOST_LABELS][sizeof((tercio__faults *)NULL)->label];

static void note_label(const char *label)
{
    for (size_t i = 0; i < MOST_LABELS; i++) {
        if (met[i][0] == '\0')
            strcpy(met[i], label);
        if (strcmp(met[i], label) == 0)
            return;
    }
    fail();
}

/* Those of the engine's source, as the build has found them. Returns: how many; 0 where the build has left no list. */
static unsigned read_labels(char *label[MOST_LABELS])
{
    static char text[MOST_LABELS * sizeof met[0]];
    const char *labels = getenv("FAULT_LABELS");
    unsigned n = 0;
    char *at = NULL;
    if (labels == NULL)
        return 0;
    assert_true(strlen(labels) < sizeof text);
    strcpy(text, labels);
    for (label[n] = strtok_r(text, ";", &at); label[n]; label[n] = strtok_r(NULL, ";", &at)) {
        n++;
        assert_true(n < MOST_LABELS);
    }
    return n;
}

/* A point that is lost, with a file that the build overlooks, say, would be missed by nobody. A change that adds or
 * removes a point changes this number. */
static void no_point_is_lost(void **state)
{
    char *label[MOST_LABELS];
    unsigned n = read_labels(label);
    (void)state;
    if (n == 0)
        skip();
    assert_int_equal(n, LABELS);
    for (unsigned i = 0; i < n; i++) {
        assert_true(strlen(label[i]) < sizeof met[0]);
        for (unsigned other = 0; other < i; other++)
            assert_string_not_equal(label[i], label[other]);
    }
}

static void every_point_was_met(void **state)
{
    char *label[MOST_LABELS];
    unsigned missing = 0, n = read_labels(label);
    (void)state;
    if (n == 0)
        skip();
    for (unsigned l = 0; l < n; l++) {
        size_t i = 0;
        while (i < MOST_LABELS && strcmp(met[i], label[l]) != 0)
            i++;
        if (i == MOST_LABELS) {
            print_error("never met: %s\n", label[l]);
            missing++;
        }
    }
    assert_int_equal(missing, 0);
}

/* Returns: whether somebody was struck. */
static bool strike(const char *method, unsigned act, uint32_t side, uint32_t how, uint32_t at)
{
    uint64_t random = at * UINT64_C(0x9e3779b97f4a7c15) + how;
    int status = 0, end = -1;
    pid_t pid;
    *faults = (tercio__faults){.side = side, .at = at, .how = how};
    new_ledger();
    pid_t player = begin_play(method, acts[act]);
    uint64_t bound = nanoseconds() + (uint64_t)BOUND_SECONDS * 1000000000u;
    while (atomic_load(&faults->state) == TERCIO__FAULT_ARMED && nanoseconds() < bound)
        tercio__word_wait(&faults->state, TERCIO__FAULT_ARMED, bound);
    bool struck = atomic_load(&faults->state) == TERCIO__FAULT_STRUCK;
    if (struck && how == TERCIO__STRIKE_HOLD) {
        while (atomic_load(&faults->victim) == 0)
            sched_yield();
        (void)kill(atomic_load(&faults->victim), SIGSTOP);
        atomic_store(&faults->released, 1);
        tercio__word_wake(&faults->released);
        struct timespec moment = {.tv_nsec = (long)(next_random(&random) % 3000000)};
        nanosleep(&moment, NULL); /* how far the others get meanwhile is left to chance */
        (void)kill(atomic_load(&faults->victim), SIGCONT);
    }
    alarm(BOUND_SECONDS);
    /* A process that loses its parent becomes a child of this one: when there is none, nobody is left. */
    while ((pid = waitpid(-1, &status, 0)) > 0 || errno == EINTR)
        if (pid == player)
            end = status;
    alarm(0);
    bool parent_died = struck && side == TERCIO__PARENT_SIDE && how == TERCIO__STRIKE_KILL;
    bool good = parent_died ? WIFSIGNALED(end) && WTERMSIG(end) == SIGKILL : WIFEXITED(end) && WEXITSTATUS(end) == 0;
    if (!good)
        print_error("%s, from %s on, %s, %s at point %u (%s): status %x\n", method, acts[act],
                    side ? "worker" : "parent", how == TERCIO__STRIKE_KILL ? "killed" : "stopped", at, faults->label,
                    (unsigned)end);
    assert_true(good);
    if (struck)
        note_label(faults->label);
    return struck;
}

static const char *const methods[] = {"fork", "spawn", "forkserver"};

static void walk(uint32_t side, uint32_t how)
{
    /* A server's children are forked too: they are left for the long form. */
    size_t n = sizeof methods / sizeof *methods - (getenv("TERCIO_LONG") == NULL);
    for (size_t m = 0; m < n; m++) {
        unsigned points = 0;
        for (unsigned act = 0; act < N_ACTS; act++) {
            /* How many points a play passes is left to chance too: the end is where nobody gets, twice. */
            for (uint32_t at = 1, in_vain = 0; in_vain < 2; at++)
                if (strike(methods[m], act, side, how, at)) {
                    points++;
                    in_vain = 0;
                } else {
                    in_vain++;
                }
        }
        print_message("%s, %s: %u points\n", methods[m], side ? "worker" : "parent", points);
        assert_true(points > 100);
    }
}

static void worker_killed(void **state)
{
    (void)state;
    walk(TERCIO__WORKER_SIDE, TERCIO__STRIKE_KILL);
}

static void worker_stopped(void **state)
{
    (void)state;
    walk(TERCIO__WORKER_SIDE, TERCIO__STRIKE_HOLD);
}

static void parent_killed(void **state)
{
    (void)state;
    walk(TERCIO__PARENT_SIDE, TERCIO__STRIKE_KILL);
}

/* The caller is rung by others meanwhile: what a worker has not rung for, it has not taken from them. */
static void stopped_before_it_rings(void **state)
{
    (void)state;
    for (size_t m = 0; m < sizeof methods / sizeof *methods; m++)
        for (int round = 0; round < 10; round++) {
            *faults = (tercio__faults){.side = TERCIO__WORKER_SIDE};
            new_ledger();
            pid_t player = begin_play(methods[m], STOPPED_RING);
            int end = wait_status(player);
            assert_true(WIFEXITED(end) && WEXITSTATUS(end) == 0);
        }
}

static void parent_stopped(void **state)
{
    (void)state;
    walk(TERCIO__PARENT_SIDE, TERCIO__STRIKE_HOLD);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(no_point_is_lost),   cmocka_unit_test(worker_killed),
                                       cmocka_unit_test(worker_stopped),     cmocka_unit_test(parent_killed),
                                       cmocka_unit_test(parent_stopped),     cmocka_unit_test(stopped_before_it_rings),
                                       cmocka_unit_test(every_point_was_met)};
    tercio_worker_entry(argc, argv, own_table());
    if (argc == 4 && strcmp(argv[1], "--play") == 0) {
        faults = map_file("TERCIO_FAULTS", sizeof *faults);
        the_ledger = map_ledger(0);
        return play(argv[2], argv[3]);
    }
    char paths[2][32] = {"/tmp/tercio-ledger-XXXXXX", "/tmp/tercio-faults-XXXXXX"};
    for (int i = 0; i < 2; i++) {
        int fd = mkstemp(paths[i]);
        if (fd < 0 || setenv(i ? "TERCIO_FAULTS" : "BATTERY_LEDGER", paths[i], 1))
            return 1;
        close(fd);
    }
    faults = map_file("TERCIO_FAULTS", sizeof *faults);
    the_ledger = map_ledger(0);
    if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
        return 1;
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    int failed = cmocka_run_group_tests_name("fault_points", tests, NULL, NULL);
    unlink(paths[0]);
    unlink(paths[1]);
    return failed;
}
