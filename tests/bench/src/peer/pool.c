/* Preloaded into the peer where a workload has more frames than Open vSwitch's packet pools hold (262,144, fixed when it is
 * compiled; its pcap driver keeps one buffer per frame). Large pools become as large as HOIST_PEER_BUFFERS says; nothing
 * else changes, and nothing on a packet's way does. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

#define LARGE 65536u

typedef void *make_pool(const char *, unsigned, unsigned, uint16_t, uint16_t, int);

void *rte_pktmbuf_pool_create(const char *name, unsigned count, unsigned cached, uint16_t private_size,
                              uint16_t data_room, int socket)
{
    static make_pool *original;
    const char *asked = getenv("HOIST_PEER_BUFFERS");
    unsigned long least = asked ? strtoul(asked, NULL, 10) : 0;

    if (!original)
        *(void **)&original = dlsym(RTLD_NEXT, "rte_pktmbuf_pool_create");
    if (count >= LARGE && least > count)
        count = (unsigned)least;
    return original(name, count, cached, private_size, data_room, socket);
}
