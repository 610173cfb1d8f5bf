/* A libnccl.so.2 of the version in FAKE_NCCL_VERSION: its communicators exist, and its gathers fail. */
#include <stdlib.h>

int ncclGetVersion(int *version);
int ncclCommInitAll(void **comms, int n, const int *devices);
int ncclCommDestroy(void *comm);
int ncclCommAbort(void *comm);
int ncclAllGather(const void *send, void *recv, size_t count, int type, void *comm, void *stream);
int ncclGroupStart(void);
int ncclGroupEnd(void);
const char *ncclGetErrorString(int result);

int ncclGetVersion(int *version)
{
    const char *text = getenv("FAKE_NCCL_VERSION");
    *version = text ? atoi(text) : 0;
    return 0;
}

int ncclCommInitAll(void **comms, int n, const int *devices)
{
    static char communicator;
    for (int i = 0; comms && i < n; i++)
        comms[i] = &communicator;
    return comms ? 0 : n;
}

int ncclCommDestroy(void *comm)
{
    return 0;
}

int ncclCommAbort(void *comm)
{
    return 0;
}

int ncclAllGather(const void *send, void *recv, size_t count, int type, void *comm, void *stream)
{
    return 1;
}

int ncclGroupStart(void)
{
    return 0;
}

int ncclGroupEnd(void)
{
    return 0;
}

const char *ncclGetErrorString(int result)
{
    return "fake";
}
