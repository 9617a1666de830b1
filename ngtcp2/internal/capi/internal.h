/* What the files of the connection share. Everything is used with the
 * connection's lock held, by one thread at a time. */
#ifndef AQ_INTERNAL_H
#define AQ_INTERNAL_H

#include <ngtcp2/ngtcp2.h>
#include <ngtcp2/ngtcp2_crypto.h>

#include "guard.h"
#include "memory.h"
#include "shim.h"
#include "tls.h"

#define AQ_SECOND 1000000000ull
#define AQ_CHUNK_CLASSES 7 /* 1 KiB, 2 KiB ... 64 KiB with their header */
#define AQ_CHUNK_MIN 1024u
#define AQ_CHUNK_MAX 65536u
#define AQ_FREE_MAX (4096u * 1024u) /* bytes of chunks kept for reuse */
#define AQ_TRIM_AFTER AQ_SECOND
#define AQ_GRANULARITY (AQ_SECOND / 1000)
#define AQ_SEND_MIN (256u * 1024u) /* a send buffer is not smaller for a small cwnd */
#define AQ_SEND_AHEAD (64u * 1024u) /* buffered beyond the peer's windows */
#define AQ_UNSENT_MAX (1024u * 1024u) /* more would only leave the caches */
#define AQ_QLOG_MAX (1024u * 1024u)
#define AQ_URGENCIES 8
#define AQ_VECS 16
#define AQ_ONCE 4
#define AQ_PAUSE (AQ_SECOND / 4000) /* see burst_max */
#define AQ_BURST_MAX (128u * 1024u) /* bytes */
#define AQ_AGGREGATE 64000u /* bytes for one sendmsg: at most 64 packets, 65507 bytes */

typedef struct aq_sending aq_sending;
typedef struct aq_connection aq_connection;
typedef struct aq_message aq_message;
typedef struct aq_first aq_first;

/* A list of stream data. What is before from was acknowledged or read. */
typedef struct aq_data {
  aq_chunk *head, *tail;
  uint32_t grow; /* size of the next chunk, a power of two */
} aq_data;

/* The whole of a stream; pub is what Go sees. It lives from ngtcp2's first
 * word of it, or Go's, until both have let go. */
struct aq_sending {
  aq_stream pub;
  aq_connection *conn;
  aq_sending *hash_next;

  uint8_t known;    /* ngtcp2 has it: our callbacks get this struct */
  uint8_t released; /* Go has let go */
  uint8_t orphan;   /* of rejected early data: neither knows the other's */

  /* Sending. acked <= sent <= end; the data of [acked, end) is in tx. */
  uint8_t fin, fin_sent, fin_alone, fin_waits, tx_dead, tx_reset, want_write;
  uint8_t reset_pending, stop_pending; /* for ngtcp2, once it knows the stream */
  uint8_t rx_dead, rx_reset;
  uint64_t reset_code, stop_code;
  aq_data tx;
  aq_chunk *cur; /* holds byte sent, if sent < end */
  uint64_t head_offset, cur_offset; /* of the first bytes of tx.head and cur */
  uint64_t acked, sent, end;

  /* Receiving. Of total bytes that came credited were given back to the
   * connection's window. */
  uint32_t rx_grow;
  uint64_t rx_total, rx_credited;

  /* Scheduling, see sched.c. */
  uint8_t urgency, incremental, queued, blocked, deferred;
  aq_sending *next, *prev;           /* incremental: a ring */
  aq_sending *child, *left, *right;  /* not: a pairing heap */
  aq_sending *defer_next;
  aq_sending *apply_next;
  uint8_t applying;
};

typedef struct aq_queue {
  aq_message *head, *tail;
  uint32_t len;
} aq_queue;

/* How many streams of a kind the peer may open. */
typedef struct aq_places {
  uint64_t most;    /* at a time */
  uint64_t allowed; /* in all, as far as it is told */
  uint64_t opened;  /* in all */
  uint64_t ended;   /* which it is not told to have places for */
} aq_places;

struct aq_connection {
  aq_conn pub;
  ngtcp2_crypto_conn_ref ref;
  ngtcp2_conn *quic;
  aq_tls *tls;
  uint64_t now;
  uint8_t server, no_memory, event_datagram, hello_ready, touched;
  uint8_t completed, confirmed, close_set, reset_key_set, engine_ids, cid_len;
  uint8_t settled; /* client: ngtcp2 has left the handshake behind */
  uint8_t offered_early; /* client: the ClientHello asked for 0-RTT */
  uint8_t initial_again; /* client: Initial packets may have to be sent again */
  uint8_t got;        /* the last read brought stream data, or its acknowledgment */
  uint8_t sending;    /* the last write left something that pacing holds back */
  uint8_t asks;       /* the packet that is read has brought stream data */
  uint8_t unanswered; /* packets with data since one was written: 0, 1 or 2 for more */
  aq_places places[2]; /* of the peer's streams: bidirectional, unidirectional */
  uint64_t lost;      /* packets, when a read was looked at last */
  uint64_t soon, tick; /* a timer that need not be exact, and when it is due */
  uint8_t broken;  /* an assertion failed: see guard.c */
  uint8_t in_call; /* of Go, that can come to ngtcp2 */
  uint8_t in_tls;  /* the TLS library is at work on tls */
  uint32_t once[AQ_ONCE]; /* where the events are that are listed once */
  int failure; /* the error that ended the connection */
  uint8_t validating; /* the current path */
  uint8_t spare_id;   /* server: one more connection ID is taken than was said */
  ngtcp2_ccerr close; /* what the library's errors ask for */
  uint64_t burst; /* bytes that may be written before pacing makes a pause */
  uint64_t initial_window;
  uint64_t send_buffer;
  uint16_t probes[6]; /* sizes of packets that search for the path's limit */
  uint8_t reset_key[32];

  /* The ClientHello, until TLS takes it. */
  uint8_t *hello;
  size_t hello_len, hello_cap;

  /* Streams by ID. */
  aq_sending **table;
  size_t table_size, table_len;
  aq_sending *orphans;
  aq_sending *apply; /* have something pending that ngtcp2 can be told now */

  /* Scheduling. */
  struct {
    aq_sending *ring, *heap;
    uint8_t turn;
  } ready[AQ_URGENCIES];
  uint32_t ready_mask;
  aq_sending *deferred;     /* wait for the connection's window */
  aq_sending *packet_first; /* whose turn ends with the packet */
  uint32_t fin_waiting;     /* streams with fin_waits */

  /* Chunks for reuse, by size. */
  aq_chunk *free[AQ_CHUNK_CLASSES];
  uint64_t free_bytes;

  aq_queue out_messages, in_messages;
  uint32_t max_messages;

  aq_cid *pool; /* of AQ_CID_POOL; NULL until Go supplies one */

  aq_first *first; /* server: until TLS begins or a packet was sent */

  uint8_t *token; /* of the last NEW_TOKEN frame */
  size_t token_len;
  uint8_t *qlog;
  size_t qlog_len, qlog_cap;

  aq_connection *kept_next; /* of those that could not be freed */
};

/* The functions that do the work of those that Go calls: see entry.c. */
#define ENTRY(CONN, ERROR, TYPE, FAILED, NAME, PARAMETERS, ARGUMENTS) \
  TYPE aq_do_##NAME PARAMETERS;
#define ENTRY_VOID(CONN, FAILED, NAME, PARAMETERS, ARGUMENTS) \
  void aq_do_##NAME PARAMETERS;
#include "entries.h"
void aq_do_conn_free(aq_conn *c);


static inline aq_connection *aq_of(aq_conn *c) { return (aq_connection *)c; }
static inline aq_sending *aq_stream_of(aq_stream *s) { return (aq_sending *)s; }

/* memory.c */
const ngtcp2_mem *aq_mem(void);
aq_chunk *aq_chunk_get(aq_connection *c, size_t want);
void aq_chunk_put(aq_connection *c, aq_chunk *ch);
void aq_chunk_put_list(aq_connection *c, aq_chunk *ch);
void aq_chunk_sort(aq_connection *c); /* takes what Go recycled */
void aq_chunk_trim(aq_connection *c);
int aq_data_append(aq_connection *c, aq_data *d, const uint8_t *p, size_t n);

/* addr.c */
int aq_path_set(ngtcp2_path_storage *out, const aq_path *p);
void aq_path_get(aq_path *out, const ngtcp2_path *p);
int aq_addr_set(ngtcp2_sockaddr_union *out, ngtcp2_socklen *len, const aq_addr *a);
void aq_cid_set(ngtcp2_cid *out, const aq_cid *id);

/* qlog.c */
void aq_qlog_write(void *user_data, uint32_t flags, const void *data,
                   size_t len);

/* conn.c */
int aq_server_quic(aq_connection *c, const aq_settings *s,
                   const aq_server_options *o, const uint8_t *token,
                   size_t token_len);
int aq_read_packet(aq_connection *c, const ngtcp2_path *path, uint32_t ecn,
                   const uint8_t *data, size_t len);

/* first.c */
int aq_first_new(aq_connection *c, const aq_settings *s,
                 const aq_server_options *o, const uint8_t *token,
                 size_t token_len);
void aq_first_free(aq_connection *c);
void aq_first_add(aq_connection *c, const aq_path *path, uint32_t ecn,
                  const uint8_t *p, size_t len);
int aq_first_quiet(const aq_connection *c);
uint64_t aq_first_expiry(const aq_connection *c);
int aq_first_read_more(aq_connection *c, int rv);
int aq_first_again(aq_connection *c, int *done);

/* error.c */
void aq_error_set(aq_error *e, aq_connection *c, int code);
int aq_fail(aq_connection *c, int code);       /* the connection ends; code */
int aq_fail_softly(aq_connection *c, int code); /* unless code is fatal */

/* callbacks.c */
extern const ngtcp2_callbacks aq_callbacks;
#ifdef AQ_PLAIN /* only in the build that fuzzes frames, see plain.c */
extern int aq_plain;
extern const ngtcp2_callbacks *aq_plain_callbacks(void);
#  define AQ_CALLBACKS (aq_plain ? aq_plain_callbacks() : &aq_callbacks)
#else
#  define AQ_CALLBACKS (&aq_callbacks)
#endif
int aq_event_add(aq_connection *c, uint32_t type, int64_t stream, uint64_t code);
/* aq_event_once changes the code of an event of this type that Go has not seen yet,
 * if there is one: a peer can make many. */
int aq_event_once(aq_connection *c, uint32_t type, uint64_t code);
int aq_event_cid(aq_connection *c, uint32_t type, const ngtcp2_cid *id);
int aq_event_token(aq_connection *c, uint32_t type, const uint8_t *token);
int aq_make_reset_token(aq_connection *c, const ngtcp2_cid *id, uint8_t *token);

/* stream.c */
aq_sending *aq_stream_find(aq_connection *c, int64_t id);
aq_sending *aq_stream_add(aq_connection *c, int64_t id);
void aq_stream_opened(aq_connection *c, int64_t id);
int aq_stream_received(aq_sending *s, const uint8_t *p, size_t n, int fin);
void aq_stream_abandon(aq_sending *s); /* nothing will be read any more */
void aq_stream_drop_unsent(aq_sending *s);
int aq_stream_acked(aq_sending *s, uint64_t offset, uint64_t n);
int aq_stream_finished(aq_sending *s);
int aq_stream_ended(aq_sending *s, uint64_t code); /* ngtcp2 forgets it */
int aq_streams_reject(aq_connection *c);
void aq_streams_free(aq_connection *c);
int aq_streams_apply(aq_connection *c);
void aq_streams_apply_later(aq_sending *s);
int aq_streams_credit(aq_connection *c);
void aq_streams_unblock(aq_connection *c); /* limits are new */
int aq_streams_settle(aq_connection *c);
size_t aq_stream_vecs(aq_sending *s, ngtcp2_vec *vec, size_t n, int *fin);
void aq_stream_sent(aq_sending *s, size_t n, int fin);

/* sched.c */
void aq_sched_add(aq_sending *s);
void aq_sched_remove(aq_sending *s);
void aq_sched_undefer(aq_connection *c);
void aq_sched_forget_deferred(aq_sending *s);
ngtcp2_ssize aq_write_packet(ngtcp2_conn *quic, ngtcp2_path *path,
                             ngtcp2_pkt_info *pi, uint8_t *dest, size_t len,
                             ngtcp2_tstamp now, void *user_data);

/* datagram.c */
struct aq_message {
  aq_message *next;
  size_t len;
  uint8_t data[];
};
int aq_datagram_received(aq_connection *c, const uint8_t *p, size_t n);
void aq_datagrams_free(aq_connection *c);
void aq_queue_pop(aq_queue *q);
size_t aq_datagram_room(aq_connection *c);

#endif
