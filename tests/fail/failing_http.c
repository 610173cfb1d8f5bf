/* Calls of the HTTP library that fail, for failing_own.h. What it closes or frees when it refuses is done here likewise. */
#include "tests/fail/failing_own.h"
#include <microhttpd.h>
#include <sys/socket.h>
#include <unistd.h>

#define REFUSED(name) failing_own_refuses(name, __builtin_return_address(0))

struct MHD_Response *__real_MHD_create_response_from_callback(uint64_t size, size_t block, MHD_ContentReaderCallback next, void *user,
                                                              MHD_ContentReaderFreeCallback done);
struct MHD_Response *__wrap_MHD_create_response_from_callback(uint64_t size, size_t block, MHD_ContentReaderCallback next, void *user,
                                                              MHD_ContentReaderFreeCallback done);
struct MHD_Response *__wrap_MHD_create_response_from_callback(uint64_t size, size_t block, MHD_ContentReaderCallback next, void *user,
                                                              MHD_ContentReaderFreeCallback done)
{
    return REFUSED("MHD_create_response_from_callback") ? NULL : __real_MHD_create_response_from_callback(size, block, next, user, done);
}

struct MHD_Response *__real_MHD_create_response_from_buffer_with_free_callback(size_t size, void *bytes,
                                                                               MHD_ContentReaderFreeCallback done);
struct MHD_Response *__wrap_MHD_create_response_from_buffer_with_free_callback(size_t size, void *bytes,
                                                                               MHD_ContentReaderFreeCallback done);
struct MHD_Response *__wrap_MHD_create_response_from_buffer_with_free_callback(size_t size, void *bytes, MHD_ContentReaderFreeCallback done)
{
    return REFUSED("MHD_create_response_from_buffer_with_free_callback")
               ? NULL
               : __real_MHD_create_response_from_buffer_with_free_callback(size, bytes, done);
}

enum MHD_Result __real_MHD_queue_response(struct MHD_Connection *c, unsigned status, struct MHD_Response *r);
enum MHD_Result __wrap_MHD_queue_response(struct MHD_Connection *c, unsigned status, struct MHD_Response *r);
enum MHD_Result __wrap_MHD_queue_response(struct MHD_Connection *c, unsigned status, struct MHD_Response *r)
{
    return REFUSED("MHD_queue_response") ? MHD_NO : __real_MHD_queue_response(c, status, r);
}

enum MHD_Result __real_MHD_add_connection(struct MHD_Daemon *d, int fd, const struct sockaddr *addr, socklen_t len);
enum MHD_Result __wrap_MHD_add_connection(struct MHD_Daemon *d, int fd, const struct sockaddr *addr, socklen_t len);
enum MHD_Result __wrap_MHD_add_connection(struct MHD_Daemon *d, int fd, const struct sockaddr *addr, socklen_t len)
{
    if (!REFUSED("MHD_add_connection"))
        return __real_MHD_add_connection(d, fd, addr, len);
    close(fd);
    return MHD_NO;
}
