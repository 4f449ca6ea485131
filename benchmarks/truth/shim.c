/* How long each thread of one process waits, and for what: measured from inside, at the calls that wait.
 *
 * Preloaded into a Python process (LD_PRELOAD), this stands before the calls of the C library that can wait. Around each
 * it reads the thread's CPU clock, the monotonic clock and the kernel's run-queue delay; what passed on the clock, less
 * what the thread ran and less what it waited for a CPU, is what it was blocked, and is added to one state.
 * Nothing is sampled and nothing is asked of the package that is under test.
 *
 * It acts in the process whose id is in TRUTH_SHIM_PID, and in nobody else's: not in children, not after a fork.
 *
 * What tells the GIL from any other lock: its condition variables and its mutex lie inside the variable
 * `_PyRuntime`, whose address and size the dynamic symbol table gives.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum state { GIL, NETWORK, DISK, LOCK, SLEEP, OTHER, STATES };

struct moment {
    int64_t cpu, wall, runqueue;
};

static int active;
static pid_t process;
static uintptr_t runtime_start, runtime_end;

/* "initial-exec": a preloaded library has its thread-local memory from the start, so that no access ever allocates. */
#define PER_THREAD static __thread __attribute__((tls_model("initial-exec")))
PER_THREAD int64_t blocked[STATES];
PER_THREAD int inside;        /* a call that calls another one counts once */
PER_THREAD int schedstat = -1;
static pthread_key_t at_thread_end;

/* Whether this call is to be left alone. Between vfork and exec a child runs on its parent's memory, `active` and the
 * sums included, but closes descriptors of its own: there the schedstat of the parent's thread is gone. */
static int elsewhere(void)
{
    return !active || inside || getpid() != process;
}

static int64_t now(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static int64_t read_runqueue(void)
{
    char text[96];
    if (schedstat < 0) {
        schedstat = syscall(SYS_openat, AT_FDCWD, "/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC, 0);
        if (schedstat < 0)
            return 0;
        pthread_setspecific(at_thread_end, (void *)(intptr_t)(schedstat + 1));
    }
    ssize_t length = syscall(SYS_pread64, schedstat, text, sizeof text - 1, (off_t)0);
    if (length <= 0)
        return 0;
    text[length] = 0;
    char *second;
    strtoll(text, &second, 10);
    return strtoll(second, NULL, 10);
}

/* One moment of all three clocks. A thread whose turn is over loses the CPU on the return from a system call: that
 * of the CPU clock is read before the other two, which then belong together. An interrupt can still come between these:
 * then more than 50 µs pass, and all are read again. */
static void look(struct moment *moment)
{
    for (int tries = 0; tries < 5; tries++) {
        moment->cpu = now(CLOCK_THREAD_CPUTIME_ID);
        moment->wall = now(CLOCK_MONOTONIC);
        moment->runqueue = read_runqueue();
        if (now(CLOCK_MONOTONIC) - moment->wall < 50000)
            return;
    }
}

static void forget_thread(void *descriptor)
{
    syscall(SYS_close, (int)(intptr_t)descriptor - 1);
    schedstat = -1;
}

static void forget_process(void)
{
    active = 0;
}

__attribute__((constructor)) static void begin_process(void)
{
    const char *wanted = getenv("TRUTH_SHIM_PID");
    if (wanted == NULL || atoi(wanted) != getpid())
        return;
    void *runtime = dlsym(RTLD_DEFAULT, "_PyRuntime");
    Dl_info info;
    const ElfW(Sym) *symbol = NULL;
    if (runtime == NULL || !dladdr1(runtime, &info, (void **)&symbol, RTLD_DL_SYMENT) || symbol == NULL)
        return;
    runtime_start = (uintptr_t)runtime;
    runtime_end = runtime_start + symbol->st_size;
    pthread_key_create(&at_thread_end, forget_thread);
    pthread_atfork(NULL, NULL, forget_process);
    process = getpid();
    active = 1;
}

/* For Python, through ctypes. */

int truth_active(void)
{
    return active;
}

/* wall, cpu, runqueue, then the blocked states in their order: this thread's, in nanoseconds, from some beginning. */
void truth_read(int64_t *out)
{
    struct moment moment;
    look(&moment);
    out[0] = moment.wall;
    out[1] = moment.cpu;
    out[2] = moment.runqueue;
    for (int state = 0; state < STATES; state++)
        out[3 + state] = blocked[state];
}

/* What the calls below are made of */

static int is_interpreters(const void *address)
{
    return (uintptr_t)address >= runtime_start && (uintptr_t)address < runtime_end;
}

static enum state of_lock(const void *address)
{
    return is_interpreters(address) ? GIL : LOCK;
}

static enum state of_descriptor(int descriptor)
{
    struct stat status;
    int before = errno;
    int failed = fstat(descriptor, &status);
    errno = before;
    if (failed)
        return OTHER;
    if (S_ISSOCK(status.st_mode))
        return NETWORK;
    return S_ISREG(status.st_mode) || S_ISDIR(status.st_mode) || S_ISBLK(status.st_mode) ? DISK : OTHER;
}

static void add(enum state state, const struct moment *before)
{
    struct moment after;
    int error = errno;
    look(&after);
    blocked[state] +=
        (after.wall - before->wall) - (after.cpu - before->cpu) - (after.runqueue - before->runqueue);
    errno = error;
}

/* The condition variables have two versions on x86-64, and a plain dlsym may give the one of 2002. */
static void *next(const char *name)
{
    void *found = dlvsym(RTLD_NEXT, name, "GLIBC_2.3.2");
    return found ? found : dlsym(RTLD_NEXT, name);
}

/* TIMED(type, name, parameters, arguments, what): the call `name` as its callers know it, timed. */
#define TIMED(type, name, parameters, arguments, what)           \
    type name parameters                                         \
    {                                                            \
        static type(*real) parameters;                           \
        if (real == NULL)                                        \
            real = (type(*) parameters)next(#name);              \
        if (elsewhere())                                         \
            return real arguments;                               \
        enum state waits_for = (what);                           \
        struct moment before;                                    \
        inside = 1;                                              \
        look(&before);                                           \
        type result = real arguments;                            \
        add(waits_for, &before);                                 \
        inside = 0;                                              \
        return result;                                           \
    }

/* The GIL, and others */

TIMED(int, pthread_cond_wait, (pthread_cond_t * condition, pthread_mutex_t *mutex), (condition, mutex),
      of_lock(condition))
TIMED(int, pthread_cond_timedwait,
      (pthread_cond_t * condition, pthread_mutex_t *mutex, const struct timespec *until), (condition, mutex, until),
      of_lock(condition))
TIMED(int, pthread_cond_clockwait,
      (pthread_cond_t * condition, pthread_mutex_t *mutex, clockid_t clock, const struct timespec *until),
      (condition, mutex, clock, until), of_lock(condition))

/* Most are free: those are taken without being timed. */
int pthread_mutex_lock(pthread_mutex_t *mutex)
{
    static int (*real)(pthread_mutex_t *);
    if (real == NULL)
        real = (int (*)(pthread_mutex_t *))next("pthread_mutex_lock");
    if (elsewhere())
        return real(mutex);
    int result = pthread_mutex_trylock(mutex);
    if (result != EBUSY)
        return result;
    struct moment before;
    look(&before);
    result = real(mutex);
    add(of_lock(mutex), &before);
    return result;
}

TIMED(int, sem_wait, (sem_t * semaphore), (semaphore), of_lock(semaphore))
TIMED(int, sem_timedwait, (sem_t * semaphore, const struct timespec *until), (semaphore, until), of_lock(semaphore))
TIMED(int, sem_clockwait, (sem_t * semaphore, clockid_t clock, const struct timespec *until),
      (semaphore, clock, until), of_lock(semaphore))
TIMED(int, pthread_join, (pthread_t thread, void **result_of_thread), (thread, result_of_thread), LOCK)

/* A point in time */

TIMED(int, nanosleep, (const struct timespec *duration, struct timespec *left), (duration, left), SLEEP)
TIMED(int, clock_nanosleep, (clockid_t clock, int flags, const struct timespec *time, struct timespec *left),
      (clock, flags, time, left), SLEEP)
TIMED(int, usleep, (useconds_t microseconds), (microseconds), SLEEP)

/* A socket; or, with no descriptor to wait for, a point in time */

TIMED(int, poll, (struct pollfd * descriptors, nfds_t count, int timeout), (descriptors, count, timeout),
      count ? NETWORK : SLEEP)
TIMED(int, __poll_chk, (struct pollfd * descriptors, nfds_t count, int timeout, size_t size),
      (descriptors, count, timeout, size), count ? NETWORK : SLEEP)
TIMED(int, select, (int count, fd_set *reading, fd_set *writing, fd_set *failing, struct timeval *timeout),
      (count, reading, writing, failing, timeout), count ? NETWORK : SLEEP)
TIMED(int, epoll_wait, (int descriptor, struct epoll_event *events, int size, int timeout),
      (descriptor, events, size, timeout), NETWORK)
TIMED(int, connect, (int descriptor, const struct sockaddr *address, socklen_t length), (descriptor, address, length),
      NETWORK)
TIMED(int, accept, (int descriptor, struct sockaddr *address, socklen_t *length), (descriptor, address, length),
      NETWORK)
TIMED(int, accept4, (int descriptor, struct sockaddr *address, socklen_t *length, int flags),
      (descriptor, address, length, flags), NETWORK)
TIMED(ssize_t, recv, (int descriptor, void *buffer, size_t size, int flags), (descriptor, buffer, size, flags), NETWORK)
TIMED(ssize_t, __recv_chk, (int descriptor, void *buffer, size_t size, size_t capacity, int flags),
      (descriptor, buffer, size, capacity, flags), NETWORK)
TIMED(ssize_t, recvfrom,
      (int descriptor, void *buffer, size_t size, int flags, struct sockaddr *address, socklen_t *length),
      (descriptor, buffer, size, flags, address, length), NETWORK)
TIMED(ssize_t, recvmsg, (int descriptor, struct msghdr *message, int flags), (descriptor, message, flags), NETWORK)
TIMED(ssize_t, send, (int descriptor, const void *buffer, size_t size, int flags), (descriptor, buffer, size, flags),
      NETWORK)
TIMED(ssize_t, sendto,
      (int descriptor, const void *buffer, size_t size, int flags, const struct sockaddr *address, socklen_t length),
      (descriptor, buffer, size, flags, address, length), NETWORK)
TIMED(ssize_t, sendmsg, (int descriptor, const struct msghdr *message, int flags), (descriptor, message, flags),
      NETWORK)

/* Whatever the descriptor is */

TIMED(ssize_t, read, (int descriptor, void *buffer, size_t size), (descriptor, buffer, size), of_descriptor(descriptor))
TIMED(ssize_t, __read_chk, (int descriptor, void *buffer, size_t size, size_t capacity), (descriptor, buffer, size, capacity),
      of_descriptor(descriptor))
TIMED(ssize_t, write, (int descriptor, const void *buffer, size_t size), (descriptor, buffer, size),
      of_descriptor(descriptor))
TIMED(ssize_t, readv, (int descriptor, const struct iovec *parts, int count), (descriptor, parts, count),
      of_descriptor(descriptor))
TIMED(ssize_t, writev, (int descriptor, const struct iovec *parts, int count), (descriptor, parts, count),
      of_descriptor(descriptor))
TIMED(int, close, (int descriptor), (descriptor), of_descriptor(descriptor))

/* A file */

TIMED(ssize_t, pread64, (int descriptor, void *buffer, size_t size, off64_t at), (descriptor, buffer, size, at), DISK)
TIMED(ssize_t, pwrite64, (int descriptor, const void *buffer, size_t size, off64_t at), (descriptor, buffer, size, at),
      DISK)
TIMED(int, fsync, (int descriptor), (descriptor), DISK)
TIMED(int, fdatasync, (int descriptor), (descriptor), DISK)
TIMED(int, ftruncate64, (int descriptor, off64_t size), (descriptor, size), DISK)
TIMED(int, unlink, (const char *path), (path), DISK)
TIMED(int, rename, (const char *from, const char *to), (from, to), DISK)

/* Variadic only in its declaration: the mode is always passed on. */
int open64(const char *path, int flags, ...)
{
    static int (*real)(const char *, int, mode_t);
    if (real == NULL)
        real = (int (*)(const char *, int, mode_t))next("open64");
    __builtin_va_list arguments;
    __builtin_va_start(arguments, flags);
    mode_t mode = __builtin_va_arg(arguments, mode_t);
    __builtin_va_end(arguments);
    if (elsewhere())
        return real(path, flags, mode);
    struct moment before;
    look(&before);
    int result = real(path, flags, mode);
    add(DISK, &before);
    return result;
}

/* A child process */

TIMED(pid_t, waitpid, (pid_t child, int *status, int options), (child, status, options), OTHER)
TIMED(pid_t, wait4, (pid_t child, int *status, int options, struct rusage *usage), (child, status, options, usage),
      OTHER)
TIMED(int, waitid, (idtype_t kind, id_t id, siginfo_t *information, int options), (kind, id, information, options),
      OTHER)
