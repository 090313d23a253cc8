/*
 * forward: the floor of the benchmark, an epoll forwarder without TLS from
 * 127.0.0.1:PORT to a Unix socket. It does what no gate can avoid, one read and
 * one write per message and direction, and nothing else. One thread.
 *
 *   cc -O2 -o forward forward.c && ./forward PORT SOCKET
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SIZE 65536

struct leg {
	int fd, events, ended; /* ended: nothing more is read from fd */
	char *queue;           /* what fd has not accepted yet */
	size_t from, to;
	struct leg *peer, *next_dead;
	int dead;
};

static int ep;
static char buffer[SIZE];
static struct leg *graveyard; /* freed after the round: events of it may still be in the list */

static void die(const char *what) {
	perror(what);
	exit(1);
}

static void interest(struct leg *l) {
	int want = (l->ended || l->peer->queue ? 0 : EPOLLIN) | (l->queue ? EPOLLOUT : 0);
	if (want == l->events)
		return;
	struct epoll_event e = {.events = want, .data.ptr = l};
	epoll_ctl(ep, EPOLL_CTL_MOD, l->fd, &e);
	l->events = want;
}

static void bury(struct leg *l) {
	if (l->dead)
		return;
	for (int i = 0; i < 2; i++, l = l->peer) {
		l->dead = 1;
		close(l->fd);
		l->next_dead = graveyard;
		graveyard = l;
	}
}

static void flush_end(struct leg *l) { /* l's peer has ended and l has got all of it */
	shutdown(l->fd, SHUT_WR);
	if (l->ended)
		bury(l);
}

static void readable(struct leg *l) {
	ssize_t n = read(l->fd, buffer, SIZE);
	if (n < 0) {
		if (errno != EAGAIN)
			bury(l);
		return;
	}
	if (n == 0) {
		l->ended = 1;
		interest(l);
		flush_end(l->peer);
		return;
	}
	ssize_t w = write(l->peer->fd, buffer, n);
	if (w < 0 && errno != EAGAIN) {
		bury(l);
		return;
	}
	if (w < 0)
		w = 0;
	if (w == n)
		return;
	l->peer->queue = malloc(n - w);
	if (!l->peer->queue)
		die("malloc");
	memcpy(l->peer->queue, buffer + w, n - w);
	l->peer->from = 0;
	l->peer->to = n - w;
	interest(l->peer);
	interest(l);
}

static void writable(struct leg *l) {
	ssize_t w = write(l->fd, l->queue + l->from, l->to - l->from);
	if (w < 0) {
		if (errno != EAGAIN)
			bury(l);
		return;
	}
	l->from += w;
	if (l->from < l->to)
		return;
	free(l->queue);
	l->queue = NULL;
	interest(l);
	interest(l->peer);
}

static void add(struct leg *l) {
	struct epoll_event e = {.events = l->events = EPOLLIN, .data.ptr = l};
	if (epoll_ctl(ep, EPOLL_CTL_ADD, l->fd, &e) < 0)
		die("epoll_ctl");
}

static void incoming(int listener, struct sockaddr_un *backend) {
	int c = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
	if (c < 0)
		return;
	int one = 1;
	setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	int b = socket(AF_UNIX, SOCK_STREAM, 0);
	if (b < 0 || connect(b, (struct sockaddr *)backend, sizeof *backend) < 0) {
		perror("backend");
		close(c);
		close(b);
		return;
	}
	struct leg *l = calloc(1, sizeof *l), *r = calloc(1, sizeof *r);
	if (!l || !r)
		die("calloc");
	*l = (struct leg){.fd = c, .peer = r};
	*r = (struct leg){.fd = b, .peer = l};
	/* accept4 has set the client's; connect above was to block. */
	fcntl(b, F_SETFL, O_NONBLOCK);
	add(l);
	add(r);
}

int main(int argc, char **argv) {
	if (argc != 3)
		return fputs("usage: forward PORT SOCKET\n", stderr), 2;
	signal(SIGPIPE, SIG_IGN);
	struct sockaddr_un backend = {.sun_family = AF_UNIX};
	strncpy(backend.sun_path, argv[2], sizeof backend.sun_path - 1);
	struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(listener, (struct sockaddr *)&here, sizeof here) < 0 || listen(listener, 4096) < 0)
		die("listen");
	ep = epoll_create1(0);
	struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL}, events[256];
	epoll_ctl(ep, EPOLL_CTL_ADD, listener, &e);
	for (;;) {
		int n = epoll_wait(ep, events, 256, -1);
		for (int i = 0; i < n; i++) {
			struct leg *l = events[i].data.ptr;
			if (!l) {
				incoming(listener, &backend);
				continue;
			}
			if (!l->dead && l->queue && events[i].events & EPOLLOUT)
				writable(l);
			if (!l->dead && l->events & EPOLLIN && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
				readable(l);
			else if (!l->dead && events[i].events & (EPOLLHUP | EPOLLERR) && !(events[i].events & EPOLLIN))
				bury(l);
		}
		while (graveyard) {
			struct leg *l = graveyard;
			graveyard = l->next_dead;
			free(l->queue);
			free(l);
		}
	}
}
