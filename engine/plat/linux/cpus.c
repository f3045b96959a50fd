/* SPDX-License-Identifier: MIT
 *
 * How many CPUs this process may use: its affinity, and what control groups leave of it.
 */
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../plat.h"
#include "tercio.h"

enum { most_cpus = 1 << 16 };

unsigned tercio__cpus_allowed(void)
{
    for (size_t cpus = 1024; cpus <= most_cpus; cpus *= 2) {
        cpu_set_t *set = CPU_ALLOC(cpus);
        if (!set)
            return 1;
        size_t bytes = CPU_ALLOC_SIZE(cpus);
        int result = sched_getaffinity(0, bytes, set);
        int error = errno;
        unsigned count = result == 0 ? (unsigned)CPU_COUNT_S(bytes, set) : 0;
        CPU_FREE(set);
        if (result == 0)
            return count ? count : 1;
        if (error != EINVAL) /* EINVAL: the kernel knows more CPUs than the set has room for */
            return 1;
    }
    return 1;
}

int tercio__pin_thread(const int *cpus, size_t n)
{
    int most = 1023;
    if (n == 0)
        return TERCIO_EINVAL;
    for (size_t i = 0; i < n; i++) {
        if (cpus[i] < 0 || cpus[i] >= most_cpus)
            return TERCIO_EINVAL;
        if (cpus[i] > most)
            most = cpus[i];
    }
    cpu_set_t *set = CPU_ALLOC((size_t)most + 1);
    if (!set)
        return TERCIO_ENOMEM;
    size_t bytes = CPU_ALLOC_SIZE((size_t)most + 1);
    CPU_ZERO_S(bytes, set);
    for (size_t i = 0; i < n; i++)
        CPU_SET_S((size_t)cpus[i], bytes, set);
    int result = sched_setaffinity(0, bytes, set);
    int error = errno;
    CPU_FREE(set);
    if (result == 0)
        return 0;
    errno = error;
    return error == EINVAL ? TERCIO_EINVAL : TERCIO_ESYSTEM;
}

/* ---- Control groups -------------------------------------------------------------------------------------------- */

/* Reads one line. Returns: false when there is none. */
static bool read_line(const char *path, char *text, int size)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    bool got = fgets(text, size, f) != NULL;
    fclose(f);
    return got;
}

static double quota_v2(const char *folder)
{
    char path[PATH_MAX + 32], text[128];
    snprintf(path, sizeof path, "%s/cpu.max", folder);
    if (!read_line(path, text, sizeof text))
        return 0;
    char *end;
    double quota = strtod(text, &end); /* "max" reads as 0 */
    double period = strtod(end, NULL);
    return quota > 0 && period > 0 ? quota / period : 0;
}

static double quota_v1(const char *folder)
{
    char path[PATH_MAX + 32], text[128];
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder);
    if (!read_line(path, text, sizeof text))
        return 0;
    double quota = strtod(text, NULL); /* -1: none */
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
    if (quota <= 0 || !read_line(path, text, sizeof text))
        return 0;
    double period = strtod(text, NULL);
    return period > 0 ? quota / period : 0;
}

/* True when `list`, separated by commas, holds `word`. */
static bool lists(const char *list, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = list; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, word, length) == 0 && (at[length] == 0 || at[length] == ','))
            return true;
    }
    return false;
}

/* Our path in the hierarchy that has the cpu controller (v1) or in the unified one (v2). */
static bool own_path(bool v2, char *path, size_t size)
{
    FILE *f = fopen("/proc/self/cgroup", "re");
    char *line = NULL;
    size_t room = 0;
    bool found = false;
    if (!f)
        return false;
    while (!found && getline(&line, &room, f) > 0) {
        line[strcspn(line, "\n")] = 0;
        char *controllers = strchr(line, ':');
        char *place = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!place)
            continue;
        *controllers++ = 0;
        *place++ = 0;
        found = (v2 ? strcmp(line, "0") == 0 && !*controllers : lists(controllers, "cpu")) && strlen(place) < size;
        if (found)
            strcpy(path, place);
    }
    free(line);
    fclose(f);
    return found;
}

/* Where that hierarchy is mounted, and which part of it: containers see their own part alone. */
static bool mount_of(bool v2, char *root, char *point, size_t size)
{
    FILE *f = fopen("/proc/self/mountinfo", "re");
    char *line = NULL;
    size_t room = 0;
    bool found = false;
    if (!f)
        return false;
    while (!found && getline(&line, &room, f) > 0) {
        line[strcspn(line, "\n")] = 0;
        char *tail = strstr(line, " - ");
        char *rest = NULL, *field[5];
        if (!tail)
            continue;
        *tail = 0;
        char *type = strtok_r(tail + 3, " ", &rest);
        (void)strtok_r(NULL, " ", &rest); /* the source says nothing */
        char *options = strtok_r(NULL, " ", &rest);
        if (!type || strcmp(type, v2 ? "cgroup2" : "cgroup") != 0 || (!v2 && (!options || !lists(options, "cpu"))))
            continue;
        size_t n = 0;
        for (char *word = strtok_r(line, " ", &rest); word && n < 5; word = strtok_r(NULL, " ", &rest))
            field[n++] = word;
        found = n == 5 && strlen(field[3]) < size && strlen(field[4]) < size;
        if (found) {
            strcpy(root, field[3]);
            strcpy(point, field[4]);
        }
    }
    free(line);
    fclose(f);
    return found;
}

/* The tightest quota of our group and all above it, in CPUs; 0: none. */
static double quota(bool v2)
{
    enum { room = PATH_MAX / 2 };
    char path[room], root[room], point[room], folder[PATH_MAX];
    if (!own_path(v2, path, room) || !mount_of(v2, root, point, room))
        return 0;
    size_t prefix = strcmp(root, "/") == 0 ? 0 : strlen(root);
    const char *inside = strncmp(path, root, prefix) == 0 ? path + prefix : "";
    snprintf(folder, sizeof folder, "%s%s", point, inside);

    double least = 0;
    size_t top = strlen(point);
    for (;;) {
        double here = v2 ? quota_v2(folder) : quota_v1(folder);
        if (here > 0 && (least <= 0 || here < least))
            least = here;
        char *slash = strrchr(folder, '/');
        if (!slash || strlen(folder) <= top)
            break;
        *slash = 0;
        if (strlen(folder) < top)
            break;
    }
    return least;
}

unsigned tercio__cpus_usable(void)
{
    unsigned usable = tercio__cpus_allowed();
    for (int v2 = 0; v2 < 2; v2++) {
        double cpus = quota(v2);
        if (cpus > 0 && cpus < usable) {
            unsigned whole = (unsigned)cpus;
            usable = whole < cpus ? whole + 1 : whole; /* half a CPU still runs a worker */
        }
    }
    return usable ? usable : 1;
}
