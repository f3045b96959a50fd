/* SPDX-License-Identifier: MIT */
#include "plat_bed.h"

static bool is_mapped(void *address)
{
    return msync(address, tercio__page_size(), MS_ASYNC) == 0;
}

/* ---- Shared memory --------------------------------------------------------------------------------------------- */

static void test_shm_is_nameless_and_sealed(void **state)
{
    (void)state;
    struct stat about;
    int fd = tercio__shm_create();
    assert_true(fd >= 0);
    assert_true(is_cloexec(fd));
    assert_int_equal(fstat(fd, &about), 0);
    assert_int_equal(about.st_mode & 0111, 0);
    assert_int_equal(tercio__shm_reserve(fd, 0, 1 << 20), 0);
    assert_int_equal(ftruncate(fd, 0), -1);
    assert_int_equal(errno, EPERM);
    close(fd);
}

static void test_shm_maps(void **state)
{
    (void)state;
    size_t page = tercio__page_size();
    void *shared, *other, *own;
    int fd = tercio__shm_create();
    assert_int_equal(tercio__shm_reserve(fd, page, 2 * page), 0);
    assert_int_equal(tercio__shm_map(fd, page, page, TERCIO__MAP_SHARED, &shared), 0);
    assert_int_equal(tercio__shm_map(fd, page, page, TERCIO__MAP_SHARED, &other), 0);
    assert_int_equal(tercio__shm_map(fd, page, page, TERCIO__MAP_PRIVATE, &own), 0);
    strcpy(shared, "all");
    assert_string_equal(other, "all");
    assert_string_equal(own, "all");
    strcpy(own, "mine");
    assert_string_equal(shared, "all");

    pid_t pid = fork();
    if (pid == 0)
        _exit(is_mapped(shared) ? 1 : is_mapped(own) && strcmp(own, "mine") == 0 ? 0 : 2);
    assert_int_equal(wait_status(pid), 0);

    assert_int_equal(tercio__shm_map(fd, 1, page, TERCIO__MAP_SHARED, &other), TERCIO_EINVAL);
    assert_int_equal(tercio__shm_map(fd, 0, 0, TERCIO__MAP_SHARED, &other), TERCIO_EINVAL);
    assert_int_equal(tercio__shm_map(fd, UINT64_MAX / page * page, page, TERCIO__MAP_SHARED, &other), TERCIO_EINVAL);
    tercio__shm_unmap(shared, page);
    assert_false(is_mapped(shared));
    close(fd);
}

static void test_shm_write_and_punch(void **state)
{
    (void)state;
    size_t page = tercio__page_size(), size = 3 * page;
    char *data = malloc(size), *back = malloc(size);
    for (size_t i = 0; i < size; i++)
        data[i] = (char)(i * 7);
    int fd = tercio__shm_create();
    assert_int_equal(tercio__shm_write(fd, 5 * page + 3, data, size), 0);
    assert_int_equal(pread(fd, back, size, (off_t)(5 * page + 3)), size);
    assert_memory_equal(data, back, size);
    tercio__shm_punch(fd, 6 * page, page);
    assert_int_equal(pread(fd, back, page, (off_t)(6 * page)), page);
    for (size_t i = 0; i < page; i++)
        assert_int_equal(back[i], 0);
    struct stat about;
    assert_int_equal(fstat(fd, &about), 0);
    assert_int_equal(about.st_blocks * 512, 3 * page);
    assert_int_equal(tercio__shm_write(-1, 0, data, 1), TERCIO_ESYSTEM);
    assert_int_equal(tercio__shm_write(fd, UINT64_MAX - 1, data, 4), TERCIO_ESYSTEM);
    free(data);
    free(back);
    close(fd);
}

static void beyond_the_file_limit(void)
{
    static char data[8192];
    struct rlimit limit = {1 << 20, 1 << 20};
    int fd = tercio__shm_create();
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    signal(SIGXFSZ, SIG_DFL);
    CHECK(tercio__shm_reserve(fd, 0, 1 << 20) == 0);
    errno = 0;
    CHECK(tercio__shm_reserve(fd, 0, (1 << 20) + 1) == TERCIO_ESYSTEM && errno == EFBIG);
    errno = 0;
    CHECK(tercio__shm_write(fd, (1 << 20) - 4096, data, sizeof data) == TERCIO_ESYSTEM && errno == EFBIG);
    CHECK(tercio__shm_write(fd, (1 << 20) - 4096, data, 4096) == 0);
}

static void test_shm_file_limit(void **state)
{
    (void)state;
    in_child(beyond_the_file_limit);
}

/* ---- Sleeping -------------------------------------------------------------------------------------------------- */

enum { turns = 2000 };

static void wait_turn(_Atomic uint32_t *word, uint32_t turn)
{
    uint32_t seen;
    while ((seen = atomic_load(word)) != turn)
        tercio__word_wait(word, seen, 0);
}

static void test_word_between_processes(void **state)
{
    (void)state;
    void *memory;
    int fd = tercio__shm_create();
    assert_int_equal(tercio__shm_reserve(fd, 0, 4096), 0);
    pid_t pid = fork();
    if (pid == 0)
        alarm(60);
    if (tercio__shm_map(fd, 0, tercio__page_size(), TERCIO__MAP_SHARED, &memory))
        abort();
    _Atomic uint32_t *word = memory;
    for (uint32_t i = 0; i < turns; i++) {
        wait_turn(word, 2 * i + (pid == 0));
        atomic_fetch_add(word, 1);
        tercio__word_wake(word);
    }
    if (pid == 0)
        _exit(0);
    assert_int_equal(wait_status(pid), 0);
    assert_int_equal(atomic_load(word), 2 * turns);

    tercio__word_wait(word, 7, 0); /* another value: doesn't sleep at all */
    uint64_t deadline = tercio__deadline(0.01);
    tercio__word_wait(word, 2 * turns, deadline);
    tercio__shm_unmap(memory, tercio__page_size());
    close(fd);
}

static void test_bell(void **state)
{
    (void)state;
    int bells[3] = {-1, tercio__bell_create(), tercio__bell_create()};
    assert_true(bells[1] >= 0 && is_cloexec(bells[1]));
    assert_int_equal(tercio__bells_wait(bells, 3, tercio__now(), NULL), 0);
    errno = 77;
    assert_true(tercio__bell_ring(bells[2]));
    assert_true(tercio__bell_ring(bells[2]));
    assert_int_equal(errno, 77);
    assert_int_equal(tercio__bells_wait(bells, 3, 0, NULL), 1);
    tercio__bell_clear(bells[2]);
    tercio__bell_clear(bells[2]); /* never blocks */
    assert_int_equal(tercio__bells_wait(bells, 3, tercio__deadline(0.005), NULL), 0);

    uint64_t almost = UINT64_MAX - 1;
    assert_int_equal(write(bells[1], &almost, sizeof almost), sizeof almost);
    assert_true(tercio__bell_ring(bells[1])); /* nor does this, when it is full */
    assert_false(tercio__bell_ring(-1));
    assert_int_equal(tercio__bells_wait(bells, 2, 0, NULL), 1);
    tercio__bell_clear(bells[1]);

    /* A signal that came before the wait isn't slept through. */
    struct sigaction action = {.sa_handler = count_signal}, before;
    sigset_t blocked, old;
    sigaction(SIGUSR1, &action, &before);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &blocked, &old);
    handled = 0;
    raise(SIGUSR1);
    assert_int_equal(tercio__bells_wait(bells, 3, tercio__deadline(patience), &old), TERCIO_EINTERRUPTED);
    assert_int_equal(handled, 1);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    sigaction(SIGUSR1, &before, NULL);

    close(bells[1]);
    assert_int_equal(tercio__bells_wait(bells, 2, 0, NULL), TERCIO_ESYSTEM);
    close(bells[2]);
}

static void test_clock(void **state)
{
    (void)state;
    uint64_t now = tercio__now();
    assert_true(tercio__now() >= now);
    assert_true(tercio__deadline(2) >= now + 2000000000u);
    assert_int_equal(tercio__deadline(-1), 0);
    assert_int_equal(tercio__deadline(1e300), 0);
    assert_int_equal(tercio__deadline(0.0 / (double)(now == 0)), 0);
    assert_true(tercio__deadline(0) >= now);
    tercio__yield();
}

static void test_set(void **state)
{
    (void)state;
    uint64_t tokens[4];
    int set = tercio__set_create(), a = tercio__bell_create(), b = tercio__bell_create();
    assert_true(set >= 0 && is_cloexec(set));
    assert_int_equal(tercio__set_add(set, a, 11), 0);
    assert_int_equal(tercio__set_add(set, b, UINT64_MAX), 0);
    assert_int_equal(tercio__set_add(set, b, 1), TERCIO_ESYSTEM);
    assert_int_equal(tercio__set_wait(set, tokens, 4, tercio__deadline(0.003)), 0);
    tercio__bell_ring(b);
    assert_int_equal(tercio__set_wait(set, tokens, 4, 0), 1);
    assert_true(tokens[0] == UINT64_MAX);
    tercio__bell_ring(a);
    assert_int_equal(tercio__set_wait(set, tokens, 4, tercio__deadline(1e7)), 2); /* too far for an int of ms */
    tercio__set_remove(set, b);
    assert_int_equal(tercio__set_wait(set, tokens, 1, 0), 1);
    assert_int_equal(tokens[0], 11);
    close(set);
    close(a);
    close(b);
}

/* ---- Sockets --------------------------------------------------------------------------------------------------- */

static void test_sockets(void **state)
{
    (void)state;
    int pair[2], pipes[2], got[8];
    char text[16];
    size_t n = 8;
    assert_int_equal(tercio__pair(pair), 0);
    assert_true(is_cloexec(pair[0]) && is_cloexec(pair[1]));
    assert_int_equal(tercio__receive(pair[1], text, sizeof text, got, &n, false), TERCIO_EAGAIN);
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);

    assert_int_equal(tercio__send(pair[0], "abc", 3, pipes, 2), 3);
    assert_int_equal(tercio__send(pair[0], "defg", 4, NULL, 0), 4);
    n = 8;
    assert_int_equal(tercio__receive(pair[1], text, sizeof text, got, &n, true), 3);
    assert_int_equal(n, 2);
    assert_true(is_cloexec(got[0]) && is_cloexec(got[1]));
    assert_int_equal(write(got[1], "x", 1), 1);
    assert_int_equal(read(pipes[0], text, 1), 1);
    close(got[0]);
    close(got[1]);
    n = 8;
    assert_int_equal(tercio__receive(pair[1], text, sizeof text, got, &n, true), 4);
    assert_int_equal(n, 0);

    /* What is refused leaves no descriptor behind. */
    int free_fd = lowest_free_fd();
    assert_int_equal(tercio__send(pair[0], "0123456789", 10, pipes, 2), 10);
    n = 8;
    assert_int_equal(tercio__receive(pair[1], text, 4, got, &n, true), TERCIO_EPROTOCOL);
    assert_int_equal(tercio__send(pair[0], "0", 1, pipes, 2), 1);
    n = 1;
    assert_int_equal(tercio__receive(pair[1], text, 4, got, &n, true), TERCIO_EPROTOCOL);
    assert_int_equal(n, 0);
    assert_int_equal(tercio__send(pair[0], "0", 1, pipes, 2), 1);
    assert_int_equal(tercio__receive(pair[1], text, 4, NULL, NULL, true), TERCIO_EPROTOCOL);
    assert_int_equal(lowest_free_fd(), free_fd);

    assert_int_equal(tercio__send(pair[0], "", 0, NULL, 0), TERCIO_EINVAL);
    assert_int_equal(tercio__send(pair[0], "0", 1, pipes, 9), TERCIO_EINVAL);
    size_t huge = 64 << 20;
    char *much = calloc(1, huge);
    assert_int_equal(tercio__send(pair[0], much, huge, NULL, 0), TERCIO_ETOOBIG);
    free(much);
    close(pair[0]);
    assert_int_equal(tercio__receive(pair[1], text, sizeof text, got, &n, true), 0);
    assert_int_equal(tercio__send(pair[1], "0", 1, NULL, 0), 0);
    close(pair[1]);
    close(pipes[0]);
    close(pipes[1]);
}

/* ---- This process ---------------------------------------------------------------------------------------------- */

static void *wait_for_bell(void *bell)
{
    tercio__bells_wait(bell, 1, 0, NULL);
    return NULL;
}

static void test_count_threads(void **state)
{
    (void)state;
    int bell = tercio__bell_create();
    pthread_t thread;
    tercio__bell_ring(bell);
    pthread_create(&thread, NULL, wait_for_bell, &bell); /* a sanitizer adds one of its own to the first */
    pthread_join(thread, NULL);
    tercio__bell_clear(bell);
    int before = tercio__count_threads();
    assert_true(SANITIZED ? before <= 2 : before == 1);
    pthread_create(&thread, NULL, wait_for_bell, &bell);
    assert_int_equal(tercio__count_threads(), before + 1);
    tercio__bell_ring(bell);
    pthread_join(thread, NULL);
    for (int i = 0; i < 2000;
         i++) { /* the bell has rung; one that was joined counts no more, though it is listed yet */
        assert_int_equal(pthread_create(&thread, NULL, wait_for_bell, &bell), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(tercio__count_threads(), before);
    }
    close(bell);
}

static void test_cpus(void **state)
{
    (void)state;
    cpu_set_t before, now;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    unsigned usable = tercio__cpus_usable();
    assert_in_range(usable, 1, CPU_COUNT(&before));
    int cpu = sched_getcpu(), bad[2] = {cpu, -1}, far = 1 << 20, absent = 60000;
    assert_int_equal(tercio__pin_thread(&cpu, 1), 0);
    assert_int_equal(sched_getaffinity(0, sizeof now, &now), 0);
    assert_true(CPU_COUNT(&now) == 1 && CPU_ISSET((size_t)cpu, &now));
    assert_int_equal(tercio__cpus_usable(), 1);
    assert_int_equal(tercio__pin_thread(bad, 2), TERCIO_EINVAL);
    assert_int_equal(tercio__pin_thread(&far, 1), TERCIO_EINVAL);
    assert_int_equal(tercio__pin_thread(&absent, 1), TERCIO_EINVAL);
    assert_int_equal(tercio__pin_thread(&cpu, 0), TERCIO_EINVAL);
    sched_setaffinity(0, sizeof before, &before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shm_is_nameless_and_sealed),
        cmocka_unit_test(test_shm_maps),
        cmocka_unit_test(test_shm_write_and_punch),
        cmocka_unit_test(test_shm_file_limit),
        cmocka_unit_test(test_word_between_processes),
        cmocka_unit_test(test_bell),
        cmocka_unit_test(test_clock),
        cmocka_unit_test(test_set),
        cmocka_unit_test(test_sockets),
        cmocka_unit_test(test_count_threads),
        cmocka_unit_test(test_cpus),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
