/* SPDX-License-Identifier: MIT
 *
 * The control groups of this process: where they lie, and what the memory controller counts.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../plat.h"
#include "linux.h"
#include "tercio.h"

bool tercio__read_line(const char *path, char *text, int size)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    bool got = fgets(text, size, f) != NULL;
    fclose(f);
    return got;
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

/* One line of a file of the system's that has what is looked for, taken apart in place. */
typedef struct {
    const char *controller; /* of a v1 hierarchy */
    bool v2;                /* the unified one */
    size_t size;            /* room at each of these: */
    char *path, *root, *point;
} search;

static bool find(const char *file, bool (*takes)(char *line, search *), search *wanted)
{
    FILE *f = fopen(file, "re");
    char *line = NULL;
    size_t room = 0;
    bool found = false;
    if (!f)
        return false;
    while (!found && getline(&line, &room, f) > 0) {
        line[strcspn(line, "\n")] = 0;
        found = takes(line, wanted);
    }
    free(line);
    fclose(f);
    return found;
}

/* Our path in the hierarchy that has the controller (v1) or in the unified one (v2). */
static bool takes_path(char *line, search *wanted)
{
    char *controllers = strchr(line, ':');
    char *place = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!place)
        return false;
    *controllers++ = 0;
    *place++ = 0;
    bool is_it = wanted->v2 ? strcmp(line, "0") == 0 && !*controllers : lists(controllers, wanted->controller);
    if (!is_it || strlen(place) >= wanted->size)
        return false;
    strcpy(wanted->path, place);
    return true;
}

/* Where that hierarchy is mounted, and which part of it: containers see their own part alone. */
static bool takes_mount(char *line, search *wanted)
{
    char *tail = strstr(line, " - ");
    char *rest = NULL, *field[5];
    if (!tail)
        return false;
    *tail = 0;
    char *type = strtok_r(tail + 3, " ", &rest);
    (void)strtok_r(NULL, " ", &rest); /* the source says nothing */
    char *options = strtok_r(NULL, " ", &rest);
    if (!type || strcmp(type, wanted->v2 ? "cgroup2" : "cgroup") != 0 ||
        (!wanted->v2 && (!options || !lists(options, wanted->controller))))
        return false;
    size_t n = 0;
    for (char *word = strtok_r(line, " ", &rest); word && n < 5; word = strtok_r(NULL, " ", &rest))
        field[n++] = word;
    if (n < 5 || strlen(field[3]) >= wanted->size || strlen(field[4]) >= wanted->size)
        return false;
    strcpy(wanted->root, field[3]);
    strcpy(wanted->point, field[4]);
    return true;
}

bool tercio__cgroup_folder(const char *controller, bool v2, char folder[PATH_MAX], size_t *top)
{
    enum { room = PATH_MAX / 2 };
    char path[room], root[room], point[room];
    search wanted = {.controller = controller, .v2 = v2, .size = room, .path = path, .root = root, .point = point};
    if (!find("/proc/self/cgroup", takes_path, &wanted) || !find("/proc/self/mountinfo", takes_mount, &wanted))
        return false;
    size_t prefix = strcmp(root, "/") == 0 ? 0 : strlen(root);
    const char *inside = strncmp(path, root, prefix) == 0 ? path + prefix : "";
    *top = strlen(point);
    return snprintf(folder, PATH_MAX, "%s%s", point, inside) < PATH_MAX;
}

/* ---- Memory ---------------------------------------------------------------------------------------------------- */

/* The number in the line that begins with "oom_kill ". */
static bool read_kills(const char *folder, const char *name, uint64_t *n)
{
    char path[PATH_MAX + 32], line[128];
    bool found = false;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    while (!found && fgets(line, sizeof line, f))
        found = strncmp(line, "oom_kill ", 9) == 0;
    fclose(f);
    if (found)
        *n = strtoull(line + 9, NULL, 10);
    return found;
}

int tercio__memory_kills(uint64_t *n)
{
    char folder[PATH_MAX];
    size_t top;
    if (tercio__cgroup_folder("memory", false, folder, &top) && read_kills(folder, "memory.oom_control", n))
        return 0;
    if (tercio__cgroup_folder("memory", true, folder, &top) &&
        (read_kills(folder, "memory.events.local", n) || read_kills(folder, "memory.events", n)))
        return 0;
    return TERCIO_EUNSUPPORTED;
}
