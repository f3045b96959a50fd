/* SPDX-License-Identifier: MIT
 *
 * A forkserver and a process that has other rights than when it was started: its workers would have the former ones, so
 * it is refused. Only the system's own user can give rights up for this.
 */
#include "face_tasks.h"

#include <grp.h>

#include "child.h"

enum { NOBODY = 65534 };

static char folder[32], program[64];
static char *const command[] = {program, NULL};

/* A copy of this program that anybody may run. */
static void copy_program(void)
{
    char bytes[1 << 16];
    ssize_t n;
    strcpy(folder, "/tmp/tercio-rights-XXXXXX");
    CHECK(mkdtemp(folder) && chmod(folder, 0755) == 0);
    (void)snprintf(program, sizeof program, "%s/worker", folder);
    int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    int to = open(program, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
    CHECK(from >= 0 && to >= 0);
    while ((n = read(from, bytes, sizeof bytes)) > 0)
        CHECK(write(to, bytes, (size_t)n) == n);
    close(from);
    CHECK(fchmod(to, 0755) == 0 && close(to) == 0);
}

static void remove_program(void)
{
    unlink(program);
    rmdir(folder);
}

static void in_a_child_of_root(void (*body)(void))
{
    if (geteuid() != 0)
        skip();
    copy_program();
    in_child(body);
    remove_program();
}

static int open_with(tercio_server *server, tercio_pool **pool)
{
    tercio_options options = face_options(TERCIO_FORKSERVER, 1);
    options.worker_argv = command;
    options.server = server;
    return tercio_open(pool, &options);
}

static void works(tercio_pool *pool)
{
    int64_t in = 2, out = 0;
    CHECK(tercio_map(pool, DOUBLE, &in, 8, 1, &out, NULL, NULL) == 0 && out == 4);
}

static void give_up_user(void)
{
    CHECK(setgroups(0, NULL) == 0 && setgid(NOBODY) == 0 && setuid(NOBODY) == 0);
}

static void give_up_groups(void)
{
    const gid_t other[] = {NOBODY};
    CHECK(setgroups(1, other) == 0);
}

static void give_up_effective_user(void)
{
    CHECK(setresuid((uid_t)-1, NOBODY, (uid_t)-1) == 0);
}

/* Opening a pool is refused, and a server that is started now is taken. */
static void refuses_after(void (*give_up)(void))
{
    tercio_server *before, *after;
    tercio_pool *pool;
    CHECK(tercio_server_open(&before, command) == 0);
    CHECK(tercio_server_fits(before) == 1);
    CHECK(open_with(before, &pool) == 0);
    works(pool);
    tercio_close(pool);
    give_up();
    CHECK(tercio_server_fits(before) == 0);
    pool = (tercio_pool *)(uintptr_t)1;
    CHECK(open_with(before, &pool) == TERCIO_ERIGHTS && pool == NULL);
    CHECK(tercio_server_open(&after, command) == 0);
    CHECK(tercio_server_fits(after) == 1);
    CHECK(open_with(after, &pool) == 0);
    works(pool);
    tercio_close(pool);
    tercio_server_close(after);
    tercio_server_close(before);
}

static void another_user(void)
{
    refuses_after(give_up_user);
}

static void other_groups(void)
{
    refuses_after(give_up_groups);
}

static void another_effective_user(void)
{
    refuses_after(give_up_effective_user);
}

/* Workers that live are kept, and none that dies is replaced: the pool fails with the same error. */
static void no_worker_is_replaced(void)
{
    tercio_result failure = {.size = sizeof failure};
    tercio_pool *pool;
    int64_t how = BY_EXIT, in = 2, out = 0;
    CHECK(open_with(NULL, &pool) == 0);
    give_up_groups();
    works(pool);
    (void)tercio_map(pool, DIE, &how, 8, 1, &out, NULL, NULL);
    CHECK(tercio_map(pool, DOUBLE, &in, 8, 1, &out, NULL, NULL) == TERCIO_ERIGHTS);
    CHECK(tercio_failure(pool, &failure) == 1 && failure.status == TERCIO_ERIGHTS);
    tercio_close(pool);
}

#define RIGHTS_TEST(function)             \
    static void test_##function(void **s) \
    {                                     \
        (void)s;                          \
        in_a_child_of_root(function);     \
    }
RIGHTS_TEST(another_user)
RIGHTS_TEST(other_groups)
RIGHTS_TEST(another_effective_user)
RIGHTS_TEST(no_worker_is_replaced)

int main(int argc, char **argv)
{
    tercio_worker_entry(argc, argv, &face_table);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_another_user),
        cmocka_unit_test(test_other_groups),
        cmocka_unit_test(test_another_effective_user),
        cmocka_unit_test(test_no_worker_is_replaced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
