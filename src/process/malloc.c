/* What glibc's allocator does with large blocks. Compiled by build.rs and linked whole; runs before main. */
#include <malloc.h>

/* Blocks from 1 MiB on are mapped on their own, so that they go back to the system when they are freed. glibc starts like
 * that, but the first freed block of up to 32 MiB teaches it to keep such blocks, for each thread that ever had one: a few
 * dozen logins, whose password hashes take 19 MiB, would hold a gigabyte for ever. Other C libraries do not learn. */
#ifdef M_MMAP_THRESHOLD
__attribute__((constructor)) static void map_large_blocks(void) { mallopt(M_MMAP_THRESHOLD, 1 << 20); }
#endif
