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
#include "linux.h"
#include "tercio.h"

enum { most_cpus = 1 << 16 };

/* Those of its affinity alone. */
static unsigned cpus_allowed(void)
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

static double quota_v2(const char *folder)
{
    char path[PATH_MAX + 32], text[128];
    snprintf(path, sizeof path, "%s/cpu.max", folder);
    if (!tercio__read_line(path, text, sizeof text))
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
    if (!tercio__read_line(path, text, sizeof text))
        return 0;
    double quota = strtod(text, NULL); /* -1: none */
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
    if (quota <= 0 || !tercio__read_line(path, text, sizeof text))
        return 0;
    double period = strtod(text, NULL);
    return period > 0 ? quota / period : 0;
}

/* The tightest quota of our group and all above it, in CPUs; 0: none. */
static double quota(bool v2)
{
    char folder[PATH_MAX];
    size_t top;
    double least = 0;
    if (!tercio__cgroup_folder("cpu", v2, folder, &top))
        return 0;
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
    unsigned usable = cpus_allowed();
    for (int v2 = 0; v2 < 2; v2++) {
        double cpus = quota(v2);
        if (cpus > 0 && cpus < usable) {
            unsigned whole = (unsigned)cpus;
            usable = whole < cpus ? whole + 1 : whole; /* half a CPU still runs a worker */
        }
    }
    return usable ? usable : 1;
}
