-- The extension's objects, the six segments, and who may look.
DROP EXTENSION pg_quorum;
CREATE EXTENSION pg_quorum;
DO $$ BEGIN
  FOR attempt IN 1..100 LOOP
    EXIT WHEN (SELECT count(*) FILTER (WHERE state = 'streaming') FROM quorum.segments) = 6;
    PERFORM pg_sleep(0.1);
  END LOOP;
END $$;
SELECT az, count(*) AS segments, bool_and(state = 'streaming') AS all_streaming FROM quorum.segments GROUP BY az ORDER BY az;
SELECT count(*) AS volumes, bool_and(has_quorum) AS has_quorum, bool_and(state = 'running') AS is_running,
       bool_and(epoch > 0) AS has_epoch, bool_and(volume ~ '^[0-9a-f-]{36}$') AS has_name
  FROM quorum.volume;
SELECT node, state FROM quorum.segments ORDER BY node;

-- What a commit wrote is durable when it returns.
CREATE TABLE durable (a int);
SELECT quorum.durable_lsn() AS before \gset
INSERT INTO durable SELECT generate_series(1, 1000);
SELECT quorum.durable_lsn() > :'before'::pg_lsn AS has_moved, quorum.durable_lsn() <= pg_current_wal_insert_lsn() AS is_behind;
SELECT quorum.wait_for_lsn(pg_current_wal_insert_lsn()) AS all_durable;
SELECT quorum.wait_for_lsn('FFFFFFFF/0', '10 milliseconds') AS far_away;
SELECT quorum.wait_for_lsn(NULL) IS NULL AS null_lsn;
SET statement_timeout = '50ms';
SELECT quorum.wait_for_lsn('FFFFFFFF/0');
RESET statement_timeout;

-- Counters count (some are published once in a tick).
SELECT pg_sleep(1.5);
SELECT wal_bytes_shipped > 0 AS bytes, records_shipped >= 1000 AS records, messages_sent >= batches_shipped AS messages,
       cache_hits + cache_misses > 0 AS reads, commit_waits > 0 AS commits, page_errors
  FROM quorum.stat;
SELECT (SELECT sum(n) FROM unnest(commit_wait_histogram) n) = commit_waits AS every_wait_is_in_a_bucket FROM quorum.stat;
SELECT name, samples > 0 AS has_samples, array_length(buckets, 1) AS buckets FROM quorum.latency WHERE name IN ('commit_wait', 'quorum') ORDER BY name;

-- Everybody may wait; the rest is for pg_monitor.
CREATE ROLE regress_quorum_nobody;
CREATE ROLE regress_quorum_monitor IN ROLE pg_monitor;
SET ROLE regress_quorum_nobody;
SELECT quorum.durable_lsn() > '0/0' AS may_ask;
SELECT count(*) FROM quorum.segments;
SELECT count(*) FROM quorum.counters();
SET ROLE regress_quorum_monitor;
SELECT count(*) FROM quorum.segments;
SELECT count(*) FROM quorum.stat;
RESET ROLE;
-- Every object, those of later versions too: nobody but a superuser has what is not listed here.
SELECT p.proname AS function, has_function_privilege('regress_quorum_nobody', p.oid, 'EXECUTE') AS nobody,
       has_function_privilege('regress_quorum_monitor', p.oid, 'EXECUTE') AS monitor
  FROM pg_proc p WHERE p.pronamespace = 'quorum'::regnamespace ORDER BY p.proname COLLATE "C";
SELECT c.relname AS view, has_table_privilege('regress_quorum_nobody', c.oid, 'SELECT') AS nobody,
       has_table_privilege('regress_quorum_monitor', c.oid, 'SELECT') AS monitor,
       has_table_privilege('regress_quorum_monitor', c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE') AS monitor_changes
  FROM pg_class c WHERE c.relnamespace = 'quorum'::regnamespace AND c.relkind = 'v' ORDER BY c.relname COLLATE "C";
SELECT has_schema_privilege('regress_quorum_nobody', 'quorum', 'CREATE') AS nobody_creates,
       has_schema_privilege('regress_quorum_monitor', 'quorum', 'CREATE') AS monitor_creates;
DROP ROLE regress_quorum_nobody, regress_quorum_monitor;
DROP TABLE durable;
