// Finds many short texts in a block of memory, in one pass. See memory_scan.py.

#include <stdint.h>
#include <string.h>

struct needle {
    const unsigned char *text;
    uint32_t size;  // at least 8
    int32_t next;   // another one with the same first bytes, or -1
};

struct hit {
    uint64_t offset;
    uint64_t needle;
};

static uint32_t slot_of(const unsigned char *text) {
    uint32_t word;
    memcpy(&word, text, sizeof word);
    return (word * 2654435761u) >> 16;
}

void memory_index(struct needle *needles, int32_t count, int32_t *table) {
    for (uint32_t slot = 0; slot < 65536; slot++) table[slot] = -1;
    for (int32_t i = 0; i < count; i++) {
        uint32_t slot = slot_of(needles[i].text);
        needles[i].next = table[slot];
        table[slot] = i;
    }
}

// Where needles are in `body`: how many hits there were, of which at most `room` are written to `hits`.
uint64_t memory_find(const struct needle *needles, const int32_t *table, const unsigned char *body, uint64_t size,
                     struct hit *hits, uint64_t room) {
    uint64_t found = 0;
    for (uint64_t at = 0; at + 8 <= size; at++) {
        for (int32_t i = table[slot_of(body + at)]; i >= 0; i = needles[i].next) {
            if (needles[i].size > size - at || memcmp(body + at, needles[i].text, needles[i].size) != 0) continue;
            if (found < room) hits[found] = (struct hit){at, (uint64_t)i};
            found++;
        }
    }
    return found;
}
