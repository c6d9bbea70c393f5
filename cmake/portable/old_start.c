// The start of a program that must run with glibc 2.28. Since 2.34 it is libc that runs a program's
// constructors; before, the program brought a function for it, which a newer libc calls as well.
#include <stddef.h>

typedef void (*constructor)(int, char**, char**);
extern constructor __preinit_array_start[] __attribute__((visibility("hidden")));
extern constructor __preinit_array_end[] __attribute__((visibility("hidden")));
extern constructor __init_array_start[] __attribute__((visibility("hidden")));
extern constructor __init_array_end[] __attribute__((visibility("hidden")));
extern void _init(void);

static void run_constructors(int argc, char** argv, char** environment) {
  for (constructor* one = __preinit_array_start; one != __preinit_array_end; one++) {
    (*one)(argc, argv, environment);
  }
  _init();
  for (constructor* one = __init_array_start; one != __init_array_end; one++) {
    (*one)(argc, argv, environment);
  }
}

typedef int (*main_function)(int, char**, char**);
int __real___libc_start_main(main_function main, int argc, char** argv, constructor init,
                             void (*fini)(void), void (*loader_fini)(void), void* stack_end);

// The linker gives the program's entry this one (--wrap).
int __wrap___libc_start_main(main_function main, int argc, char** argv, constructor init,
                             void (*fini)(void), void (*loader_fini)(void), void* stack_end) {
  if (init == NULL) init = run_constructors;
  return __real___libc_start_main(main, argc, argv, init, fini, loader_fini, stack_end);
}
