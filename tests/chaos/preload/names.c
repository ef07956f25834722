/* Preloaded into a host by the fault suite: a resolver that lies. rebinding.test is this machine the first time a process asks and a cloud's
   metadata address from then on; metadata.test and mapped.test are such an address at once, plain and inside IPv6. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdatomic.h>
#include <string.h>

typedef int (*resolver)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *restrict name, const char *restrict port, const struct addrinfo *restrict hints, struct addrinfo **restrict out) {
    static resolver real;
    static atomic_int asked;
    if (!real) real = (resolver)dlsym(RTLD_NEXT, "getaddrinfo");
    if (name && !strcmp(name, "rebinding.test")) name = atomic_fetch_add(&asked, 1) ? "169.254.169.254" : "127.0.0.1";
    else if (name && !strcmp(name, "metadata.test")) name = "169.254.169.254";
    else if (name && !strcmp(name, "mapped.test")) name = "::ffff:169.254.169.254";
    return real(name, port, hints, out);
}
