// What our libraries, and the static ones in them, take from glibc 2.29 to 2.36, in terms of glibc
// 2.28. Linked into what must run there, and seen by nothing else.
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <spawn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define HIDDEN __attribute__((visibility("hidden")))

// glibc 2.33 made these functions; before, they were inline calls of versioned ones.
extern int __xstat(int version, const char* path, struct stat* into);
extern int __lxstat(int version, const char* path, struct stat* into);
extern int __fxstat(int version, int fd, struct stat* into);
extern int __fxstatat(int version, int directory, const char* path, struct stat* into, int flags);
enum { kStatVersion = 1 };  // of x86-64

HIDDEN int stat(const char* path, struct stat* into) { return __xstat(kStatVersion, path, into); }
HIDDEN int lstat(const char* path, struct stat* into) { return __lxstat(kStatVersion, path, into); }
HIDDEN int fstat(int fd, struct stat* into) { return __fxstat(kStatVersion, fd, into); }
HIDDEN int fstatat(int directory, const char* path, struct stat* into, int flags) {
  return __fxstatat(kStatVersion, directory, path, into, flags);
}
// The same on x86-64.
HIDDEN int stat64(const char*, struct stat64*) __attribute__((alias("stat")));
HIDDEN int lstat64(const char*, struct stat64*) __attribute__((alias("lstat")));
HIDDEN int fstat64(int, struct stat64*) __attribute__((alias("fstat")));

// glibc 2.30, for std::condition_variable's steady clock. Before, libstdc++ waited by the wall
// clock, as this does: who waits sees a jump of that clock as one late or early return.
HIDDEN int pthread_cond_clockwait(pthread_cond_t* condition, pthread_mutex_t* mutex,
                                  clockid_t clock, const struct timespec* until) {
  struct timespec theirs, wall;
  if (clock == CLOCK_REALTIME) return pthread_cond_timedwait(condition, mutex, until);
  if (clock_gettime(clock, &theirs) != 0 || clock_gettime(CLOCK_REALTIME, &wall) != 0)
    return EINVAL;
  wall.tv_sec += until->tv_sec - theirs.tv_sec;
  wall.tv_nsec += until->tv_nsec - theirs.tv_nsec;
  if (wall.tv_nsec < 0) {
    wall.tv_sec--;
    wall.tv_nsec += 1000000000;
  } else if (wall.tv_nsec >= 1000000000) {
    wall.tv_sec++;
    wall.tv_nsec -= 1000000000;
  }
  return pthread_cond_timedwait(condition, mutex, &wall);
}

// glibc 2.32. libstdc++ counts references without atomic operations while it is true.
HIDDEN char __libc_single_threaded = 0;

// glibc 2.34. Without it, descriptors that lack O_CLOEXEC reach the child.
HIDDEN int posix_spawn_file_actions_addclosefrom_np(posix_spawn_file_actions_t* actions, int from) {
  int (*real)(posix_spawn_file_actions_t*, int) = (int (*)(posix_spawn_file_actions_t*, int))dlsym(
      RTLD_DEFAULT, "posix_spawn_file_actions_addclosefrom_np");
  return real != NULL ? real(actions, from) : ENOSYS;
}

// glibc 2.34, and Linux 5.9.
static void close_listed(unsigned first, unsigned last) {
  DIR* listed = opendir("/proc/self/fd");
  if (listed == NULL) return;
  for (struct dirent* entry = readdir(listed); entry != NULL; entry = readdir(listed)) {
    const int fd = atoi(entry->d_name);
    if (entry->d_name[0] != '.' && (unsigned)fd >= first && (unsigned)fd <= last &&
        fd != dirfd(listed)) {
      close(fd);
    }
  }
  closedir(listed);
}

HIDDEN int close_range(unsigned first, unsigned last, int flags) {
  const int done = (int)syscall(SYS_close_range, first, last, flags);
  if (done == 0 || errno != ENOSYS || flags != 0) return done;
  close_listed(first, last);
  return 0;
}

// glibc 2.30.
HIDDEN pid_t gettid(void) { return (pid_t)syscall(SYS_gettid); }

// glibc 2.36, for std::random_device.
HIDDEN uint32_t arc4random(void) {
  uint32_t number;
  while (getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number) {
    if (errno != EINTR) abort();
  }
  return number;
}

// glibc 2.35. GCC 12's unwinder asks this, and nothing else, for the tables of a program counter.
struct search {
  uintptr_t pc;
  struct dl_find_object* result;
};

static int look_into(struct dl_phdr_info* info, size_t size, void* argument) {
  struct search* search = argument;
  (void)size;
  const ElfW(Phdr)* eh_frame = NULL;
  const ElfW(Phdr)* holds_pc = NULL;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr)* header = &info->dlpi_phdr[i];
    if (header->p_type == PT_GNU_EH_FRAME) eh_frame = header;
    const uintptr_t start = info->dlpi_addr + header->p_vaddr;
    if (header->p_type == PT_LOAD && search->pc >= start && search->pc - start < header->p_memsz) {
      holds_pc = header;
    }
  }
  if (holds_pc == NULL) return 0;
  if (eh_frame == NULL) return -1;
  const uintptr_t start = info->dlpi_addr + holds_pc->p_vaddr;
  search->result->dlfo_flags = 0;
  search->result->dlfo_map_start = (void*)start;
  search->result->dlfo_map_end = (void*)(start + holds_pc->p_memsz);
  search->result->dlfo_link_map = NULL;
  search->result->dlfo_eh_frame = (void*)(info->dlpi_addr + eh_frame->p_vaddr);
  return 1;
}

HIDDEN int _dl_find_object(void* pc, struct dl_find_object* result) {
  struct search search = {(uintptr_t)pc, result};
  return dl_iterate_phdr(look_into, &search) == 1 ? 0 : -1;
}
