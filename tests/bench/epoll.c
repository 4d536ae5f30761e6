/* The least that a server of this kind can do, to compare with: one thread, epoll, and the system calls that have to be.
 *
 *     epoll PORT REDIS_PORT
 *
 * It subscribes to the channel `chat`, publishes what a client sends, and sends each client, with one send(), all messages
 * that came in one read from Redis. It trusts its peers: it checks nothing of handshakes and frames, answers no ping, and
 * drops a client whose socket buffer is full. It prints a line with its address when it is ready.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SCRATCH = 65536, TAIL = 131072, EVENTS = 1024 };

/* An idle client costs these bytes and no buffer. */
struct client {
    int fd;
    int place; /* in `clients`; -1 before its handshake */
};

/* A connection to Redis, with the unfinished end of what it said and what it is still owed. */
struct redis {
    int fd;
    size_t have, owed;
    char in[TAIL + SCRATCH], out[1 << 22];
};

static struct redis publisher, subscriber;
static struct client **clients;
static int client_count, client_room;
static unsigned char scratch[SCRATCH], run[2 * (TAIL + SCRATCH)];

static int epoll_fd, listener;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void watch(int fd, void *data, uint32_t events) {
    struct epoll_event event = {.events = events | EPOLLET, .data.ptr = data};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
}

static struct sockaddr_in loopback(int port) {
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void no_delay(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static void flush(struct redis *redis) {
    size_t sent = 0;
    while (sent < redis->owed) {
        ssize_t n = send(redis->fd, redis->out + sent, redis->owed - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN) break;
        if (n < 0) die("send to Redis");
        sent += n;
    }
    memmove(redis->out, redis->out + sent, redis->owed - sent);
    redis->owed -= sent;
}

static void drop(struct client *client) {
    close(client->fd);
    if (client->place >= 0) {
        clients[client->place] = clients[--client_count];
        clients[client->place]->place = client->place;
    }
    free(client);
}

/* One SUBSCRIBE reply or message from `text`: how long it is, or 0 if it is not whole. */
static size_t push(const char *text, size_t length, const char **payload, size_t *payload_length) {
    const char *at = text, *end = text + length;
    *payload = NULL;
    for (int part = 0; part < 4; part++) {
        char *line_end = memchr(at, '\n', end - at);
        if (!line_end) return 0;
        size_t size = strtoul(at + 1, NULL, 10);
        char kind = *at;
        at = line_end + 1;
        if (kind != '$') continue;
        if ((size_t)(end - at) < size + 2) return 0;
        if (part == 3) *payload = at, *payload_length = size;
        at += size + 2;
    }
    return at - text;
}

static size_t frame_header(unsigned char *out, size_t length) {
    out[0] = 0x81;
    if (length < 126) return out[1] = length, 2;
    if (length < 65536) return out[1] = 126, out[2] = length >> 8, out[3] = length, 4;
    out[1] = 127;
    for (int i = 0; i < 8; i++) out[2 + i] = (uint64_t)length >> (56 - 8 * i);
    return 10;
}

static void fan_out(void) {
    for (;;) {
        ssize_t n = recv(subscriber.fd, subscriber.in + subscriber.have, SCRATCH, MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) die("recv from Redis");
        subscriber.have += n;
        size_t at = 0, used, filled = 0, length;
        const char *payload;
        while ((used = push(subscriber.in + at, subscriber.have - at, &payload, &length))) {
            at += used;
            if (!payload) continue;
            filled += frame_header(run + filled, length);
            memcpy(run + filled, payload, length);
            filled += length;
        }
        memmove(subscriber.in, subscriber.in + at, subscriber.have -= at);
        for (int i = client_count; filled && i-- > 0;)
            if (send(clients[i]->fd, run, filled, MSG_NOSIGNAL) != (ssize_t)filled)
                /* Its end of file comes as an event and frees it, when no other event of it can still be waiting. */
                shutdown(clients[i]->fd, SHUT_RDWR);
    }
}

/* A text frame of the client becomes a PUBLISH. Its frames are whole: the generator writes less than a segment at once. */
static void publish(unsigned char *at, unsigned char *end) {
    while (end - at >= 6) {
        size_t length = at[1] & 127;
        at += 2;
        if (length == 126) length = at[0] << 8 | at[1], at += 2;
        unsigned char *mask = at, *payload = at + 4;
        for (size_t i = 0; i < length; i++) payload[i] ^= mask[i & 3];
        if (publisher.owed + length + 64 > sizeof publisher.out) die("Redis is too slow");
        char *out = publisher.out + publisher.owed;
        int head = sprintf(out, "*3\r\n$7\r\nPUBLISH\r\n$4\r\nchat\r\n$%zu\r\n", length);
        memcpy(out + head, payload, length);
        memcpy(out + head + length, "\r\n", 2);
        publisher.owed += head + length + 2;
        at = payload + length;
    }
}

static void shake_hands(struct client *client, size_t length) {
    /* The generator does not look at the accept key, which is that of RFC 6455's example. */
    static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                 "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    if (!memmem(scratch, length, "\r\n\r\n", 4)) return;
    send(client->fd, answer, sizeof answer - 1, MSG_NOSIGNAL);
    if (client_count == client_room) {
        client_room = client_room ? 2 * client_room : 1024;
        clients = realloc(clients, client_room * sizeof *clients);
        if (!clients) die("realloc");
    }
    client->place = client_count;
    clients[client_count++] = client;
}

static void hear(struct client *client) {
    for (;;) {
        ssize_t n = recv(client->fd, scratch, SCRATCH, 0);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) return drop(client);
        if (client->place < 0) shake_hands(client, n);
        else publish(scratch, scratch + n);
        if (n < SCRATCH) return;
    }
}

static void take_clients(void) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct client *client = malloc(sizeof *client);
        if (!client) die("malloc");
        *client = (struct client){.fd = fd, .place = -1};
        no_delay(fd);
        watch(fd, client, EPOLLIN);
    }
}

static void dial(struct redis *redis, int port) {
    struct sockaddr_in address = loopback(port);
    redis->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(redis->fd, (void *)&address, sizeof address)) die("connect to Redis");
    no_delay(redis->fd);
}

static void start(int port, int redis_port) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);

    dial(&publisher, redis_port);
    dial(&subscriber, redis_port);
    static const char subscribe[] = "*2\r\n$9\r\nSUBSCRIBE\r\n$4\r\nchat\r\n", reply[] = "*3\r\n$9\r\nsubscribe\r\n$4\r\nchat\r\n:1\r\n";
    send(subscriber.fd, subscribe, sizeof subscribe - 1, 0);
    if (recv(subscriber.fd, scratch, sizeof reply - 1, MSG_WAITALL) != sizeof reply - 1) die("SUBSCRIBE");

    struct sockaddr_in address = loopback(port);
    int on = 1;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 4096)) die("listen");
    socklen_t size = sizeof address;
    getsockname(listener, (void *)&address, &size);

    epoll_fd = epoll_create1(0);
    watch(listener, &listener, EPOLLIN);
    watch(publisher.fd, &publisher, EPOLLIN | EPOLLOUT);
    watch(subscriber.fd, &subscriber, EPOLLIN);
    printf("listening on http://localhost:%d/\n", ntohs(address.sin_port));
    fflush(stdout);
}

int main(int count, char **args) {
    if (count != 3) return fprintf(stderr, "usage: epoll PORT REDIS_PORT\n"), 2;
    start(atoi(args[1]), atoi(args[2]));
    for (;;) {
        static struct epoll_event events[EVENTS];
        int ready = epoll_wait(epoll_fd, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            void *who = events[i].data.ptr;
            if (who == &subscriber) fan_out();
            else if (who == &listener) take_clients();
            else if (who == &publisher)
                /* The replies, which say how many subscribers there are. */
                while (recv(publisher.fd, scratch, SCRATCH, MSG_DONTWAIT) > 0);
            else hear(who);
        }
        if (publisher.owed) flush(&publisher);
    }
}
