/* SPDX-License-Identifier: MIT
 *
 * Descriptors of blocks that point anywhere, in a file that holds anything: a view that opens lies in the file.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory/arena.h"
#include "memory/views.h"

enum { PAGES = 16, PAGE = 4096 };

static tercio__file *file;
static unsigned char *bytes;

static int open_file(void)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, PAGES * PAGE))
        return -1;
    bytes = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    file = tercio__file_new(fd);
    return bytes == MAP_FAILED || file == NULL ? -1 : 0;
}

/* One byte: how much of the head is true; then the descriptor; the rest lies where it points, or in page 1. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static volatile unsigned sum; /* so that the bytes are read */
    tercio_block block;
    tercio_view view = {0};
    (void)sum;
    if (file == NULL && open_file())
        abort();
    if (size < 1 + sizeof block)
        return 0;
    uint8_t how = data[0];
    memcpy(&block, data + 1, sizeof block);
    data += 1 + sizeof block;
    size -= 1 + sizeof block;
    if (how & 1) {
        block.offset = block.offset % (PAGES + 1) * PAGE;
        block.size %= PAGES * PAGE + 1;
    }
    uint64_t at = how & 1 && block.offset < PAGES * PAGE ? block.offset : PAGE;
    size_t room = (size_t)(PAGES * PAGE - at);
    memcpy(bytes + at, data, size < room ? size : room);
    if (how & 2) {
        tercio__block_head *head = (tercio__block_head *)(void *)(bytes + at);
        head->magic = TERCIO__BLOCK_MAGIC;
        head->size = how & 4 ? block.size : head->size;
        atomic_store(&head->state, TERCIO__BLOCK_LENT);
    }
    if (tercio__view_open(file, &block, &view) == 0) {
        for (size_t i = 0; i < view.size; i++)
            sum += ((const unsigned char *)view.data)[i];
        tercio__view_close(&view);
    } else {
        tercio__block_return(file, &block);
    }
    return 0;
}
