-- Relations whose files grow, shrink and vanish; what is read afterwards is what was written.
CREATE TABLE grown (a int, b text) WITH (autovacuum_enabled = false);
INSERT INTO grown SELECT g, repeat('x', 500) FROM generate_series(1, 20000) g;
CREATE INDEX grown_a ON grown (a);
CHECKPOINT;
DELETE FROM grown WHERE a > 100;
VACUUM (TRUNCATE) grown;
SELECT pg_relation_size('grown') < 20 * 8192 AS is_short, count(*), sum(a) FROM grown;
INSERT INTO grown SELECT g, repeat('y', 500) FROM generate_series(101, 5000) g;
CHECKPOINT;
SELECT count(*), sum(a), count(*) FILTER (WHERE b LIKE 'y%') AS new FROM grown;
SET enable_seqscan = off;
SELECT count(*), sum(a) FROM grown WHERE a BETWEEN 90 AND 200;
RESET enable_seqscan;
VACUUM FULL grown;
SELECT count(*), sum(a) FROM grown;
TRUNCATE grown;
INSERT INTO grown VALUES (1, 'after');
SELECT * FROM grown;

-- Temporary and unlogged relations are local.
CREATE TEMP TABLE temporary AS SELECT g AS a FROM generate_series(1, 5000) g;
SELECT count(*), sum(a) FROM temporary;
CREATE UNLOGGED TABLE unlogged (a int PRIMARY KEY);
INSERT INTO unlogged SELECT generate_series(1, 5000);
CHECKPOINT;
SELECT count(*), sum(a) FROM unlogged;
ALTER TABLE unlogged SET LOGGED;
SELECT count(*), sum(a) FROM unlogged;
ALTER TABLE unlogged SET UNLOGGED;
SELECT count(*), sum(a) FROM unlogged;

-- Rolled-back relations leave nothing behind.
BEGIN;
CREATE TABLE gone AS SELECT g AS a FROM generate_series(1, 5000) g;
SELECT count(*) FROM gone;
ROLLBACK;
CREATE TABLE gone (a int);
SELECT count(*) FROM gone;

-- A jump: blocks that nobody wrote read as zeros, not as an older relation's pages.
CREATE INDEX grown_hash ON grown USING hash (b);
INSERT INTO grown SELECT g, g::text FROM generate_series(1, 3000) g;
SELECT count(*) FROM grown WHERE b = '77';
DROP TABLE grown, unlogged, gone;
