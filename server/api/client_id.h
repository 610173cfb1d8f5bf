/* Who asks, for the scheduler's turns: a named key, else an address. Names and addresses become opaque ids; behind proxies that are trusted the
 * address is the one that they forward. */
#pragma once
#include "common/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLIENT_ID_PROXIES 64
#define CLIENT_ID_UNNAMED "default" /* the client of --api-key, which many may share: told apart by address */

/* An IPv6 address, or an IPv4 one mapped into it (::ffff:a.b.c.d). */
struct client_address {
    unsigned char bytes[16];
};

/* Reads "192.0.2.1", "2001:db8::1", and with a port "192.0.2.1:80", "[2001:db8::1]:80"; n: bytes of the text. */
bool client_address_read(const char *text, size_t n, struct client_address *ret);

/* Who may say for whom it asks. Zeroed: nobody. */
struct client_proxies {
    struct {
        struct client_address net;
        int bits;
    } items[CLIENT_ID_PROXIES];
    int n;
};

/* ADDR[/BITS], separated by commas; NULL: none. ERR_INVALID names the entry. */
int client_proxies_read(const char *list, struct client_proxies *ret, struct err *err);

/* The address that counts: the peer's; if the peer is a trusted proxy, the last of `forwarded` (X-Forwarded-For; NULL: none) that is not one. What
 * cannot be read ends the search at the address that told it. */
struct client_address client_address_of(const struct client_proxies *p, const struct client_address *peer, const char *forwarded);
/* name: the key's; "": none. Of an IPv6 address the first 64 bits count, since a host has all that begin so. Ids are not 0, and differ between
 * runs of the program. */
uint64_t client_id(const char *name, const struct client_address *a);
