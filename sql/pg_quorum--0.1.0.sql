\echo Use "CREATE EXTENSION pg_quorum" to load this file. \quit

-- Functions over the server's shared memory.

CREATE FUNCTION durable_lsn() RETURNS pg_lsn
  LANGUAGE c STRICT VOLATILE PARALLEL SAFE AS 'MODULE_PATHNAME', 'durable_lsn_wrapper';
COMMENT ON FUNCTION durable_lsn() IS 'everything below is held by four of the six storage nodes';

CREATE FUNCTION wait_for_lsn(lsn pg_lsn, timeout interval DEFAULT NULL) RETURNS boolean
  LANGUAGE c VOLATILE PARALLEL SAFE AS 'MODULE_PATHNAME', 'wait_for_lsn_wrapper';
COMMENT ON FUNCTION wait_for_lsn(pg_lsn, interval) IS 'waits until everything below the LSN is durable; false after the timeout';

CREATE FUNCTION volume_state(
    OUT volume text, OUT epoch bigint, OUT durable_lsn pg_lsn, OUT state text, OUT has_quorum boolean,
    OUT message text, OUT cached_chunks bigint) RETURNS SETOF record
  LANGUAGE c STRICT VOLATILE PARALLEL SAFE AS 'MODULE_PATHNAME', 'volume_state_wrapper';

CREATE FUNCTION segment_states(
    OUT node text, OUT az text, OUT address text, OUT segment text, OUT state text, OUT message text,
    OUT epoch bigint, OUT scl pg_lsn, OUT lag_bytes bigint, OUT append_p50_us bigint,
    OUT append_p99_us bigint, OUT pages_served bigint) RETURNS SETOF record
  LANGUAGE c STRICT VOLATILE PARALLEL SAFE AS 'MODULE_PATHNAME', 'segment_states_wrapper';

CREATE FUNCTION counters(OUT name text, OUT value bigint) RETURNS SETOF record
  LANGUAGE c STRICT VOLATILE PARALLEL SAFE AS 'MODULE_PATHNAME', 'counters_wrapper';

CREATE FUNCTION latencies(
    OUT name text, OUT samples bigint, OUT total_us bigint, OUT p50_us bigint, OUT p99_us bigint,
    OUT buckets bigint[]) RETURNS SETOF record
  LANGUAGE c STRICT VOLATILE PARALLEL SAFE AS 'MODULE_PATHNAME', 'latencies_wrapper';

CREATE FUNCTION cache_state(
    OUT size_limit bigint, OUT cached bigint, OUT only_here bigint, OUT awaiting bigint,
    OUT working_set_1min bigint, OUT working_set_10min bigint, OUT working_set_1h bigint) RETURNS SETOF record
  LANGUAGE c STRICT VOLATILE PARALLEL SAFE AS 'MODULE_PATHNAME', 'cache_state_wrapper';

CREATE FUNCTION prewarm(
    relation regclass, fork text DEFAULT 'main', first_block bigint DEFAULT NULL, last_block bigint DEFAULT NULL)
    RETURNS bigint
  LANGUAGE c VOLATILE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prewarm_wrapper';
COMMENT ON FUNCTION prewarm(regclass, text, bigint, bigint) IS 'reads blocks that are not in the local page cache from storage; returns how many';

CREATE FUNCTION drop_cache(relation regclass DEFAULT NULL) RETURNS bigint
  LANGUAGE c VOLATILE PARALLEL SAFE AS 'MODULE_PATHNAME', 'drop_cache_wrapper';
COMMENT ON FUNCTION drop_cache(regclass) IS 'drops what storage has as well from the local page cache, of one relation or of all; returns how many pages';

-- Views: the stable face.

CREATE VIEW volume AS
  SELECT v.volume, v.epoch, v.durable_lsn,
         CASE WHEN pg_is_in_recovery() THEN NULL
              ELSE greatest(pg_current_wal_insert_lsn() - v.durable_lsn, 0)::bigint END AS undurable_bytes,
         v.state, v.has_quorum, v.message, v.cached_chunks
    FROM volume_state() v;
COMMENT ON VIEW volume IS 'this server''s volume: one row';

CREATE VIEW segments AS
  SELECT s.node, s.az, s.state, s.epoch, s.scl, s.lag_bytes, s.append_p50_us, s.append_p99_us,
         s.pages_served, s.address, s.segment, s.message
    FROM segment_states() s;
COMMENT ON VIEW segments IS 'the six segments of the volume, as this server sees them';

CREATE VIEW stat AS
  SELECT max(c.value) FILTER (WHERE c.name = 'wal_bytes_shipped') AS wal_bytes_shipped,
         max(c.value) FILTER (WHERE c.name = 'records_shipped') AS records_shipped,
         max(c.value) FILTER (WHERE c.name = 'batches_shipped') AS batches_shipped,
         max(c.value) FILTER (WHERE c.name = 'messages_sent') AS messages_sent,
         max(c.value) FILTER (WHERE c.name = 'bytes_sent') AS bytes_sent,
         max(c.value) FILTER (WHERE c.name = 'page_requests') AS page_requests,
         max(c.value) FILTER (WHERE c.name = 'pages_fetched') AS pages_fetched,
         max(c.value) FILTER (WHERE c.name = 'page_errors') AS page_errors,
         max(c.value) FILTER (WHERE c.name = 'cache_hits') AS cache_hits,
         max(c.value) FILTER (WHERE c.name = 'cache_misses') AS cache_misses,
         max(c.value) FILTER (WHERE c.name = 'pages_dropped') AS pages_dropped,
         max(c.value) FILTER (WHERE c.name = 'pages_refetched') AS pages_refetched,
         max(c.value) FILTER (WHERE c.name = 'pages_passed_by') AS pages_passed_by,
         max(c.value) FILTER (WHERE c.name = 'commit_waits') AS commit_waits,
         max(c.value) FILTER (WHERE c.name = 'index_waits') AS index_waits,
         max(c.value) FILTER (WHERE c.name = 'pages_read_ahead') AS pages_read_ahead,
         max(c.value) FILTER (WHERE c.name = 'pages_prefetched') AS pages_prefetched,
         max(c.value) FILTER (WHERE c.name = 'misses_in_flight') AS misses_in_flight,
         max(c.value) FILTER (WHERE c.name = 'free_space_pages_logged') AS free_space_pages_logged,
         max(c.value) FILTER (WHERE c.name = 'free_space_rounds') AS free_space_rounds,
         max(c.value) FILTER (WHERE c.name = 'kept_good') AS kept_good,
         max(c.value) FILTER (WHERE c.name = 'kept_gone') AS kept_gone,
         (SELECT l.buckets FROM latencies() l WHERE l.name = 'commit_wait') AS commit_wait_histogram,
         (SELECT l.buckets FROM latencies() l WHERE l.name = 'quorum') AS quorum_histogram,
         (SELECT l.buckets FROM latencies() l WHERE l.name = 'page_wait') AS page_wait_histogram
    FROM counters() c;
COMMENT ON VIEW stat IS 'counts since the server''s start, and histograms as in the view latency: one row';

CREATE VIEW cache AS
  SELECT c.size_limit, c.cached, c.only_here, c.awaiting, s.cache_hits AS hits, s.cache_misses AS misses,
         s.pages_dropped, s.pages_refetched, s.pages_passed_by, s.kept_good, s.kept_gone,
         c.working_set_1min, c.working_set_10min, c.working_set_1h
    FROM cache_state() c, stat s;
COMMENT ON VIEW cache IS 'the local page cache: bytes it may hold and holds, bytes that stay because only this server has them or because something that runs may need them, counts of pages, and the bytes that were in use within a time: one row';

CREATE VIEW latency AS
  SELECT l.name, l.samples, l.total_us, l.p50_us, l.p99_us, l.buckets FROM latencies() l;
COMMENT ON VIEW latency IS 'waits since the server''s start; bucket n of the histogram, counted from 0, holds waits below 2^n microseconds';

-- Who may: what only looks is for pg_monitor, by name, so that a function that changes something stays with superusers
-- unless somebody grants it here. Waiting for one's own commits is for everybody.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA @extschema@ FROM PUBLIC;
GRANT USAGE ON SCHEMA @extschema@ TO PUBLIC;
GRANT EXECUTE ON FUNCTION volume_state(), segment_states(), counters(), latencies(), cache_state() TO pg_monitor;
GRANT EXECUTE ON FUNCTION durable_lsn(), wait_for_lsn(pg_lsn, interval) TO PUBLIC;
GRANT EXECUTE ON FUNCTION prewarm(regclass, text, bigint, bigint) TO PUBLIC;
GRANT SELECT ON volume, segments, stat, cache, latency TO pg_monitor;
