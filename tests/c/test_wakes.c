/* SPDX-License-Identifier: MIT
 *
 * Wakes that are put off (wake.c): in a pool of more workers than CPUs, while quick messages follow one another. The
 * tasks that show it all wait for one another, so each worker has to begin. To wake a worker is a call of the system, which
 * this program stands in for: it counts those of the thread that pushes and those of the supervisor, so each test sees that
 * wakes were put off, and by whom and when they were made up.
 */
#include "battery.h"

#include <dlfcn.h>
#include <linux/futex.h>
#include <stdarg.h>

enum { QUICK, MEET, WAIT };
enum { MOST_WORKERS = 256, TRIES = 200 };

typedef struct {
    uint32_t kind, n;
} request;

/* Shared with forked workers. */
static struct {
    _Atomic uint32_t met, goes_on, waiting;
} * place;

/* ---- The calls of the system that are counted, and files of it ------------------------------------------------------- */

static _Thread_local bool pushes, works;
static _Atomic unsigned by_caller, by_supervisor; /* workers that they have woken */

long syscall(long number, ...)
{
    static _Atomic(long (*)(long, ...)) known;
    long (*next)(long, ...) = atomic_load(&known);
    long a[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(list, long);
    va_end(list);
    if (next == NULL) {
        *(void **)&next = dlsym(RTLD_NEXT, "syscall");
        atomic_store(&known, next);
    }
    if (number == SYS_futex && (int)a[1] == FUTEX_WAKE && !works)
        atomic_fetch_add(pushes ? &by_caller : &by_supervisor, 1);
    return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* The folder of a control group that this process seems to be in, alone; empty: it is in those that it is in. */
static char group[64];

FILE *fopen(const char *path, const char *mode)
{
    static FILE *(*next)(const char *, const char *);
    char instead[128];
    if (next == NULL)
        *(void **)&next = dlsym(RTLD_NEXT, "fopen");
    bool is_asked = group[0] && (strcmp(path, "/proc/self/cgroup") == 0 || strcmp(path, "/proc/self/mountinfo") == 0);
    if (is_asked)
        (void)snprintf(instead, sizeof instead, "%s/%s", group, strrchr(path, '/') + 1);
    return next(is_asked ? instead : path, mode);
}

static void write_text(const char *name, const char *text)
{
    char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", group, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

/* A control group with this quota, as cpu.max has it. */
static void enter_group(const char *quota)
{
    char line[160];
    strcpy(group, "/tmp/tercio-group-XXXXXX");
    assert_non_null(mkdtemp(group));
    (void)snprintf(line, sizeof line, "30 20 0:26 / %s rw,nosuid - cgroup2 cgroup2 rw\n", group);
    write_text("cgroup", "0::/\n");
    write_text("mountinfo", line);
    write_text("cpu.max", quota);
}

static void leave_group(void)
{
    static const char *const names[] = {"cgroup", "mountinfo", "cpu.max"};
    char path[128];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", group, names[i]);
        unlink(path);
    }
    rmdir(group);
    group[0] = '\0';
}

/* ---- A run whose workers can meet --------------------------------------------------------------------------------------- */

static int run_request(void *user, tercio_call *call, const tercio_chunk *chunk)
{
    request asked;
    (void)user;
    works = tercio_call_method(call) == TERCIO_THREADING;
    memcpy(&asked, chunk->message.data, sizeof asked);
    if (asked.kind == MEET) {
        atomic_fetch_add(&place->met, 1);
        while (atomic_load(&place->met) < asked.n && !tercio_stopping(call))
            sched_yield();
    }
    if (asked.kind == WAIT) {
        atomic_fetch_add(&place->waiting, 1);
        while (!atomic_load(&place->goes_on) && !tercio_stopping(call))
            sched_yield();
    }
    int32_t thread = (int32_t)syscall(SYS_gettid);
    tercio_bytes answer = {&thread, sizeof thread};
    return tercio_commit(call, 0, 0, &answer, 1);
}

static const tercio_host host = {.size = sizeof host, .run = run_request};

typedef struct {
    tercio_pool *pool;
    tercio_run *run;
    unsigned n_workers, n_kept; /* kept: those that are awake while more messages follow */
    uint64_t sent, answered;
    int32_t threads[MOST_WORKERS]; /* of the workers, by what they have answered; 0: it has not yet */
} feeding;

/* Returns whether there was room. */
static bool push(feeding *f, request asked, bool more)
{
    tercio_bytes part = {&asked, sizeof asked};
    tercio_message message = {
        .size = sizeof message, .index = f->sent, .n_items = 1, .parts = &part, .n_parts = 1, .more = more};
    int taken = tercio_push(f->run, &message, false);
    assert_true(taken >= 0);
    f->sent += (uint64_t)taken;
    return taken;
}

/* Returns: the number of results, 0 where there are none (in time). */
static int take(feeding *f, double timeout)
{
    tercio_result result = {.size = sizeof result};
    int n = 0, found;
    while ((found = tercio_next(f->run, n ? 0 : timeout, &result)) == 1) {
        assert_int_equal(result.status, 0);
        memcpy(&f->threads[result.worker], result.out.data, sizeof f->threads[0]);
        tercio_release(f->run, &result);
        n++;
    }
    assert_true(found == 0 || found == TERCIO_EAGAIN);
    f->answered += (uint64_t)n;
    return n;
}

/* Every worker is nearly idle: the room is there as soon as that is seen. */
static void push_surely(feeding *f, request asked, bool more)
{
    while (!push(f, asked, more))
        (void)take(f, 0);
}

static void take_all(feeding *f)
{
    while (f->answered < f->sent)
        assert_true(take(f, BOUND_SECONDS / 2) > 0);
}

static bool sleeps(int32_t thread)
{
    char path[64], text[256] = "";
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)thread);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    close(fd);
    return n > 0 && strstr(text, ") S ") != NULL;
}

/* All that is answered was answered by workers that have nothing else: each of them goes to sleep. */
static void wait_until_all_sleep(const feeding *f)
{
    for (unsigned i = 0; i < f->n_workers; i++)
        while (!sleeps(f->threads[i]))
            sched_yield();
}

/* The run's messages look so, by far. */
static bool is_quick(const feeding *f)
{
    double seconds = tercio_item_time(f->run);
    return seconds > 0 && seconds < 20e-6;
}

/* Until messages look quick, and everybody sleeps. */
static void calm_down(feeding *f)
{
    do {
        for (unsigned i = 0; i < f->n_workers; i++)
            push_surely(f, (request){.kind = QUICK}, false);
        take_all(f);
    } while (!is_quick(f));
    wait_until_all_sleep(f);
}

static feeding begin_with(void **state, unsigned n_workers, unsigned n_kept)
{
    feeding f = {.n_workers = n_workers, .n_kept = n_kept};
    tercio_options options = {.size = sizeof options,
                              .host = &host,
                              .method = method_of(state),
                              .n_workers = f.n_workers,
                              .threads_at_fork = true};
    tercio_map_options of_run = {.size = sizeof of_run, .low_water = true, .unordered = true};
    assert_true(n_workers <= MOST_WORKERS);
    atomic_store(&place->goes_on, 0);
    atomic_store(&place->waiting, 0);
    pushes = true;
    assert_int_equal(tercio_open(&f.pool, &options), 0);
    assert_int_equal(tercio_run_open(f.pool, NULL, 0, &of_run, &f.run), 0);
    atomic_store(&place->met, 0);
    for (unsigned i = 0; i < f.n_workers; i++) /* each has one: its thread is known then */
        push_surely(&f, (request){MEET, f.n_workers}, false);
    take_all(&f);
    calm_down(&f);
    return f;
}

/* A pool that is crowded. */
static feeding begin(void **state)
{
    unsigned cpus = tercio_usable_cpus();
    return begin_with(state, cpus + 6, cpus > 1 ? cpus - 1 : 1);
}

static void end(feeding *f)
{
    tercio_run_close(f->run);
    tercio_close(f->pool);
}

/* One for each worker, all of which sleep. Returns: whether the wakes of all but the kept ones are put off. They are not where
 * the machine was so slow that the supervisor has made them up meanwhile. */
static bool push_meeting(feeding *f)
{
    atomic_store(&place->met, 0);
    calm_down(f);
    atomic_store(&by_caller, 0);
    atomic_store(&by_supervisor, 0);
    for (unsigned i = 0; i < f->n_workers; i++)
        push_surely(f, (request){MEET, f->n_workers}, true);
    unsigned woken = atomic_load(&by_caller);
    if (atomic_load(&by_supervisor))
        return false;
    assert_int_equal(woken, f->n_kept);
    return true;
}

/* Without a call that would wake anybody. */
static void all_meet(const feeding *f)
{
    for (uint64_t until = nanoseconds() + BOUND_SECONDS / 2 * UINT64_C(1000000000);
         atomic_load(&place->met) < f->n_workers && nanoseconds() < until;)
        sched_yield();
    assert_int_equal(atomic_load(&place->met), f->n_workers);
}

static void flush(feeding *f)
{
    tercio_run_flush(f->run);
}

/* ... until it has succeeded. */
static void push_meeting_surely(feeding *f)
{
    for (int i = 0; i < TRIES; i++) {
        if (push_meeting(f))
            return;
        flush(f);
        all_meet(f);
        take_all(f);
    }
    fail();
}

/* ---- What ends a row of messages -------------------------------------------------------------------------------- */

static void push_the_last(feeding *f)
{
    push_surely(f, (request){.kind = QUICK}, false);
}

static void end_the_run(feeding *f)
{
    tercio_run_end(f->run);
}

static void wait_for_room(feeding *f) /* there is some: it returns at once */
{
    assert_int_equal(tercio_wait(f->run, BOUND_SECONDS / 2, true, NULL), 0);
}

static void wait_for_another_run(feeding *f)
{
    tercio_run *other;
    tercio_result result = {.size = sizeof result};
    assert_int_equal(tercio_run_open(f->pool, NULL, 0, NULL, &other), 0);
    assert_int_equal(tercio_next(other, 0.001, &result), TERCIO_EAGAIN);
    tercio_run_close(other);
}

/* All meet, since this thread has woken those whose wake was put off, each of them, and nobody else has. */
static void all_meet_after(void **state, void (*end_row)(feeding *))
{
    feeding f = begin(state);
    bool seen = false;
    for (int i = 0; i < TRIES && !seen; i++) {
        bool put_off = push_meeting(&f);
        end_row(&f);
        unsigned woken = atomic_load(&by_caller);
        seen = put_off && atomic_load(&by_supervisor) == 0;
        all_meet(&f);
        if (seen)
            assert_int_equal(woken, f.n_workers);
        take_all(&f);
        if (end_row == end_the_run && !seen) { /* it takes no more */
            end(&f);
            f = begin(state);
        }
    }
    assert_true(seen);
    end(&f);
}

static void a_flush(void **state)
{
    all_meet_after(state, flush);
}

static void a_message_that_nothing_follows(void **state)
{
    all_meet_after(state, push_the_last);
}

static void the_end_of_the_run(void **state)
{
    all_meet_after(state, end_the_run);
}

static void who_waits_for_room(void **state)
{
    all_meet_after(state, wait_for_room);
}

static void who_waits_for_another_run(void **state)
{
    all_meet_after(state, wait_for_another_run);
}

static void who_waits_for_a_result(void **state)
{
    all_meet_after(state, take_all);
}

static void who_finishes(void **state)
{
    bool seen = false;
    for (int i = 0; i < TRIES && !seen; i++) {
        feeding f = begin(state);
        bool put_off = push_meeting(&f);
        assert_int_equal(tercio_finish(f.pool, BOUND_SECONDS / 2, NULL, NULL), 0);
        assert_int_equal(atomic_load(&place->met), f.n_workers);
        seen = put_off && atomic_load(&by_supervisor) == 0;
        end(&f);
    }
    assert_true(seen);
}

/* ---- And what doesn't ------------------------------------------------------------------------------------------- */

/* Where the caller does something else the supervisor wakes them: also soon after a row that was ended, whose timer is still
 * set. */
static void nobody_is_put_off_for_long(void **state)
{
    feeding f = begin(state);
    unsigned seen = 0;
    for (int round = 0; round < TRIES && seen < 10; round++) {
        bool put_off = push_meeting(&f);
        if (round % 2 == 0)
            flush(&f);
        all_meet(&f);
        if (put_off && round % 2) {
            assert_int_equal(atomic_load(&by_caller), f.n_kept);
            assert_int_equal(atomic_load(&by_supervisor), f.n_workers - f.n_kept);
            seen++;
        }
        take_all(&f);
    }
    assert_true(seen > 0);
    end(&f);
}

/* Where it goes on, and on. */
static void nor_while_more_follow(void **state)
{
    feeding f = begin(state);
    push_meeting_surely(&f);
    uint64_t until = nanoseconds() + BOUND_SECONDS / 2 * UINT64_C(1000000000);
    while (atomic_load(&place->met) < f.n_workers && nanoseconds() < until)
        if (!push(&f, (request){.kind = QUICK}, true))
            (void)take(&f, 0);
    all_meet(&f);
    take_all(&f);
    end(&f);
}

/* It was never woken for what it had: somebody else has it then. */
static void one_that_dies_meanwhile(void **state)
{
    skip_threads(state);
    for (unsigned victim = 0; victim < 7; victim++) { /* there are so many on any machine */
        feeding f = begin(state);
        int pids[MOST_WORKERS];
        tercio_worker_pids(f.pool, pids, f.n_workers);
        push_meeting_surely(&f);
        kill(pids[victim], SIGKILL);
        tercio_run_end(f.run);
        for (bool died = false; f.answered < f.sent;) {
            tercio_result result = {.size = sizeof result};
            int found = tercio_next(f.run, BOUND_SECONDS / 2, &result);
            assert_int_equal(found, 1);
            f.answered++;
            /* It may have been awake, and begun. Then the others are one too few, and are let go. */
            died |= result.status == TERCIO_EDIED;
            if (died)
                atomic_store(&place->met, f.n_workers);
            tercio_release(f.run, &result);
        }
        end(&f);
    }
}

/* ---- What is queued, whether or not a wake is put off -------------------------------------------------------------- */

/* Each worker gets its first one though it has just answered the one before, and has yet to say that it is past it: no
 * two that wait for each other lie in one ring while another worker has nothing. Nobody would move them: no caller is
 * inside. */
static void one_for_each_of_those_that_just_answered(void **state)
{
    feeding f = begin(state);
    for (int round = 0; round < (SLOW ? 100 : 5000); round++) {
        atomic_store(&place->met, 0);
        for (unsigned i = 0; i < f.n_workers; i++)
            push_surely(&f, (request){.kind = QUICK}, true);
        take_all(&f);
        for (unsigned i = 0; i < f.n_workers; i++)
            push_surely(&f, (request){MEET, f.n_workers}, true);
        flush(&f);
        all_meet(&f);
        take_all(&f);
    }
    end(&f);
}

/* What is queued behind a long one, among quick ones, is moved at the end; all others pass it. */
static void one_that_is_held_up(void **state)
{
    feeding f = begin(state);
    for (unsigned i = 0; i < f.n_workers; i++)
        push_surely(&f, (request){.kind = QUICK}, true);
    assert_true(
        push(&f, (request){.kind = WAIT}, true)); /* beyond everybody's first: one of those that are awake gets it */
    uint64_t most = f.sent + 20000, until = nanoseconds() + BOUND_SECONDS / 2 * UINT64_C(1000000000);
    while (f.sent < most && nanoseconds() < until)
        if (!push(&f, (request){.kind = QUICK}, true) && take(&f, 0) == 0)
            assert_int_equal(tercio_wait(f.run, BOUND_SECONDS / 2, true, NULL), 0);
    assert_int_equal(f.sent, most);
    tercio_run_end(f.run);
    while (f.answered + 1 < f.sent)
        assert_true(take(&f, BOUND_SECONDS / 2) > 0);
    assert_int_equal(atomic_load(&place->waiting), 1);
    atomic_store(&place->goes_on, 1);
    take_all(&f);
    end(&f);
}

/* Two that wait for each other lie in one ring, others have nothing, and who could hand in more waits for them. */
static void one_behind_another(void **state)
{
    feeding f = begin(state);
    for (unsigned i = 0; i < f.n_workers; i++)
        push_surely(&f, (request){.kind = WAIT}, false);
    for (unsigned i = 0; i <= f.n_workers; i++) /* the first and the last of them go to the same worker */
        push_surely(&f, (request){i % f.n_workers ? QUICK : MEET, 2}, false);
    atomic_store(&place->goes_on, 1);
    take_all(&f);
    end(&f);
}

/* ---- A container's quota ---------------------------------------------------------------------------------------- */

static void skip_one_cpu(void)
{
    if (tercio_usable_cpus() < 2)
        skip();
}

/* Two workers and as many CPUs, of which the control group may use one at a time. */
static void a_quota_makes_it_crowded(void **state)
{
    skip_one_cpu();
    enter_group("100000 100000\n");
    unsigned cpus = tercio_usable_cpus();
    feeding f = begin_with(state, 2, 1);
    leave_group();
    assert_int_equal(cpus, 1);
    push_meeting_surely(&f);
    flush(&f);
    all_meet(&f);
    take_all(&f);
    end(&f);
}

static void where_each_worker_has_a_cpu_none_is_put_off(void **state)
{
    static const char *const quotas[] = {"max 100000\n", "150000 100000\n"}; /* one and a half: two */
    skip_one_cpu();
    for (size_t i = 0; i < sizeof quotas / sizeof *quotas; i++) {
        enter_group(quotas[i]);
        feeding f = begin_with(state, 2, 2);
        leave_group();
        push_meeting_surely(&f);
        all_meet(&f);
        take_all(&f);
        end(&f);
    }
}

static const battery_test tests[] = {
    BATTERY_TEST(a_flush),
    BATTERY_TEST(a_message_that_nothing_follows),
    BATTERY_TEST(the_end_of_the_run),
    BATTERY_TEST(who_waits_for_a_result),
    BATTERY_TEST(who_waits_for_room),
    BATTERY_TEST(who_finishes),
    BATTERY_TEST(who_waits_for_another_run),
    BATTERY_TEST(nobody_is_put_off_for_long),
    BATTERY_TEST(one_for_each_of_those_that_just_answered),
    BATTERY_TEST(nor_while_more_follow),
    BATTERY_TEST(one_that_is_held_up),
    BATTERY_TEST(one_behind_another),
    BATTERY_TEST(one_that_dies_meanwhile),
    BATTERY_TEST(a_quota_makes_it_crowded),
    BATTERY_TEST(where_each_worker_has_a_cpu_none_is_put_off),
};

int main(int argc, char **argv)
{
    place = shared_memory(sizeof *place);
    return run_battery_of_two("wakes", tests, sizeof tests / sizeof *tests, argc > 1 ? argv[1] : NULL);
}
